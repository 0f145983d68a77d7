"""A feature set as one page to look around in: search, neighbours, a map."""

from sgfd.featureset.explorer.contents import MOST_ITEMS, Catalogue, Generic
from sgfd.featureset.explorer.page import explorer_page, is_page

__all__ = ["MOST_ITEMS", "Catalogue", "Generic", "explorer_page", "is_page"]
