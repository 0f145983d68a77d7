"""The methods by name. A new one is a maker in a file here and one line in the table below.

Light to import: no torch, so that the command line can list the methods and their settings.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sgfd.distill.settings import (
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
    from sgfd.distill.maker import Made, Task


@dataclass(frozen=True)
class Method:
    """A way to make a feature set.

    Attributes:
        maker_place: `module:function`, a function of a task and the settings.
        settings: the class of its settings.
        needs_features, needs_labels, needs_interactions: what a data set must have.
        uses_interactions: whether the training interactions guide it where there are any.
        fuses: whether it makes one vector of several modalities, as the modality `fused`.
    """

    maker_place: str
    settings: type[Any]
    needs_features: bool = True
    needs_labels: bool = False
    needs_interactions: bool = False
    uses_interactions: bool = False
    fuses: bool = False

    def make(self, task: "Task", settings: Any) -> "Made":
        """Fit the maker to the task's catalogue; `settings` is of the method's class."""
        module, _, function = self.maker_place.partition(":")
        made: Made = getattr(import_module(module), function)(task, settings)
        return made


DEFAULT_METHOD = "sgfd-plus"

METHODS: dict[str, Method] = {
    "sgfd-plus": Method(
        "sgfd.distill.sgfd_plus:sgfd_plus", SGFDPlusSettings, uses_interactions=True, fuses=True
    ),
    "sgfd": Method("sgfd.distill.sgfd:sgfd", SGFDSettings, needs_labels=True),
    "interaction-metric": Method(
        "sgfd.distill.interaction_metric:interaction_metric",
        InteractionMetricSettings,
        needs_interactions=True,
        uses_interactions=True,
        fuses=True,
    ),
    "raw": Method("sgfd.distill.baselines:raw", RawSettings),
    "standard": Method("sgfd.distill.baselines:standard", StandardSettings),
    "pca": Method("sgfd.distill.baselines:pca", PCASettings),
    "random": Method("sgfd.distill.baselines:random", RandomSettings),
    "label": Method(
        "sgfd.distill.baselines:label", LabelSettings, needs_features=False, needs_labels=True
    ),
    "autoencoder": Method("sgfd.distill.autoencoder:autoencoder", AutoencoderSettings),
    "clcrec": Method(
        "sgfd.distill.clcrec:clcrec",
        CLCRecSettings,
        needs_interactions=True,
        uses_interactions=True,
        fuses=True,
    ),
    "rq-vae": Method("sgfd.distill.rq_vae:rq_vae", RQVAESettings, fuses=True),
}
