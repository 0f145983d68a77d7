"""Stage two: any backbone trains on a feature set and is judged by exact top-K.

from sgfd import dataset, featureset, recommenders

office = dataset.load_dataset("office")
run = recommenders.train(office, "bm3", featureset.load("artifacts/office"))
run.metrics["test"]["recall@20"]
recommenders.recommend(run, "A2TM9WEZ2CIXH2", k=5)
"""

from sgfd import openmp as _  # noqa: F401 (before torch)
from sgfd.recommenders.backbone import (
    Backbone,
    BackboneSettings,
    Batch,
    UnusableSettingsError,
)
from sgfd.recommenders.backbones import (
    backbone_places,
    find_backbone,
    find_preset,
    usable_backbones,
)
from sgfd.recommenders.evaluation import judge, top_k
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.item_sets import ItemSets
from sgfd.recommenders.newcomers import with_new_items, with_new_user
from sgfd.recommenders.recommending import recommend, similar, write_recommendations
from sgfd.recommenders.run import train
from sgfd.recommenders.run_folder import Run, load_run
from sgfd.recommenders.tuning import tune
from sgfd.settings import Range

__all__ = [
    "Backbone",
    "BackboneSettings",
    "Batch",
    "Inputs",
    "ItemSets",
    "Range",
    "Run",
    "UnusableSettingsError",
    "backbone_places",
    "find_backbone",
    "find_preset",
    "judge",
    "load_run",
    "recommend",
    "similar",
    "top_k",
    "train",
    "tune",
    "usable_backbones",
    "with_new_items",
    "with_new_user",
    "write_recommendations",
]
