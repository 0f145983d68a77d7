"""Stage one: an item catalogue's generic features become small, reusable embeddings.

from sgfd import dataset, distill

office = dataset.load_dataset("office")
distill.distill(office, Path("artifacts/office"))
distill.distill(office, Path("artifacts/office-sgfd"), distill.SGFDSettings(temperature=5))
distill.distill(office, Path("artifacts/office-pca"), method="pca")
"""

from typing import TYPE_CHECKING

from sgfd.distill.methods import DEFAULT_METHOD, METHODS, Method
from sgfd.distill.settings import (
    PRESETS,
    AutoencoderSettings,
    CLCRecSettings,
    InteractionMetricSettings,
    LabelSettings,
    PCASettings,
    RandomSettings,
    RawSettings,
    RQVAESettings,
    SGFDPlusSettings,
    SGFDSettings,
    StandardSettings,
)

if TYPE_CHECKING:
    from sgfd.distill.errors import DistillError
    from sgfd.distill.stage import DistillResult, distill

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "PRESETS",
    "AutoencoderSettings",
    "CLCRecSettings",
    "DistillError",
    "DistillResult",
    "InteractionMetricSettings",
    "LabelSettings",
    "Method",
    "PCASettings",
    "RQVAESettings",
    "RandomSettings",
    "RawSettings",
    "SGFDPlusSettings",
    "SGFDSettings",
    "StandardSettings",
    "distill",
]


def __getattr__(name: str) -> object:
    """What needs torch, on first use, so that the settings are there without it."""
    if name == "DistillError":
        from sgfd.distill import errors

        return errors.DistillError
    if name in ("distill", "DistillResult"):
        from sgfd.distill import stage

        return getattr(stage, name)
    raise AttributeError(f"module 'sgfd.distill' has no attribute {name!r}")
