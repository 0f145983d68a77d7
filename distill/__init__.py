"""Stage one: an item catalogue's generic features become small, reusable embeddings.

from sgfd import dataset, distill, featureset

office = dataset.load_dataset("office")
distill.distill(office, Path("artifacts/office"))
distill.distill(office, Path("artifacts/office-sgfd"), distill.SGFDSettings(temperature=5))
distill.distill(office, Path("artifacts/office-pca"), method="pca")

features = featureset.load("artifacts/office")
distill.embed(features, dataset.load_dataset("new_items"), Path("artifacts/office-2"), append=True)
distill.export_onnx(features, Path("office-onnx"))
distill.tune(office, Path("tunings/office"), method="interaction-metric", trials=20)
"""

from importlib import import_module
from typing import TYPE_CHECKING

from sgfd import openmp as _  # noqa: F401 (before torch; not as `sgfd`, which is a module here)
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
    from sgfd.distill.embedding import EmbedResult, embed
    from sgfd.distill.errors import DistillError
    from sgfd.distill.onnx_export import export_onnx
    from sgfd.distill.stage import DistillResult, distill
    from sgfd.distill.tuning import TunedFeatures, tune

__all__ = [
    "DEFAULT_METHOD",
    "METHODS",
    "PRESETS",
    "AutoencoderSettings",
    "CLCRecSettings",
    "DistillError",
    "DistillResult",
    "EmbedResult",
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
    "TunedFeatures",
    "distill",
    "embed",
    "export_onnx",
    "tune",
]
_NEED_TORCH = {
    "DistillError": "errors",
    "DistillResult": "stage",
    "EmbedResult": "embedding",
    "TunedFeatures": "tuning",
    "distill": "stage",
    "embed": "embedding",
    "export_onnx": "onnx_export",
    "tune": "tuning",
}


def __getattr__(name: str) -> object:
    """What needs torch, on first use, so that the settings are there without it."""
    if name in _NEED_TORCH:
        return getattr(import_module(f"sgfd.distill.{_NEED_TORCH[name]}"), name)
    raise AttributeError(f"module 'sgfd.distill' has no attribute {name!r}")
