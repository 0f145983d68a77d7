"""A feature set as one page to look around in: search, neighbours, a map."""

from sgfd.featureset.explorer.contents import MOST_ITEMS, Generic, SourceItems
from sgfd.featureset.explorer.page import explorer_page, is_page

__all__ = ["MOST_ITEMS", "Generic", "SourceItems", "explorer_page", "is_page"]
