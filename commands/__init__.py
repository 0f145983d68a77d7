"""The commands of `pipeline`, one file a group; each parses, calls the packages and prints."""
