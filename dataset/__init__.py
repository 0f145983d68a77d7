"""Data sets: item catalogues and interactions, in any of four layouts or made up.

from sgfd.dataset import load_dataset

office = load_dataset("office")
office.catalog.features["title"].rows(np.array([0, 1]))
office.interactions.train.user
"""

from sgfd.dataset.catalog import Feature, ItemCatalog, is_modality_name
from sgfd.dataset.check import check_dataset
from sgfd.dataset.distinct import are_among, distinct
from sgfd.dataset.errors import DatasetError
from sgfd.dataset.interactions import Interactions, Pairs
from sgfd.dataset.load import Dataset, find_dataset, list_datasets, load_dataset, read_layout
from sgfd.dataset.parts import (
    Parts,
    Protocol,
    Split,
    check_division,
    divide,
    pairs_fingerprint,
)
from sgfd.dataset.problems import Problem
from sgfd.dataset.sample import make_sample
from sgfd.dataset.splits import (
    cold_items_split,
    hold_out_last,
    honest_split,
    join,
    leave_one_out_split,
    random_split,
    temporal_split,
)
from sgfd.dataset.vocabulary import Vocabulary

__all__ = [
    "Dataset",
    "DatasetError",
    "Feature",
    "Interactions",
    "ItemCatalog",
    "Pairs",
    "Parts",
    "Problem",
    "Protocol",
    "Split",
    "Vocabulary",
    "are_among",
    "check_dataset",
    "check_division",
    "cold_items_split",
    "distinct",
    "divide",
    "find_dataset",
    "hold_out_last",
    "honest_split",
    "is_modality_name",
    "join",
    "leave_one_out_split",
    "list_datasets",
    "load_dataset",
    "make_sample",
    "pairs_fingerprint",
    "random_split",
    "read_layout",
    "temporal_split",
]
