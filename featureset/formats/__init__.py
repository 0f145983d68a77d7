"""A feature set in the files of other tools, one file here a tool."""

from sgfd.featureset.formats.export import FORMATS, export, refuse_guided_export

__all__ = ["FORMATS", "export", "refuse_guided_export"]
