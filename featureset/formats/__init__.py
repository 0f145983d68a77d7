"""A feature set in the files of other tools, one file here a tool."""

from sgfd.featureset.formats.export import FORMATS, export

__all__ = ["FORMATS", "export"]
