"""The ablation's student that is more than a linear map: a small network beside the map.

y = W u + V leaky_relu(H u + h) with V = 0 at first, so that the training starts at the closed form,
as that of `sgfd-plus` does, and goes on as that. No method of `pipeline distill`: the format's
students are linear, so that a set of this one can't embed new items.
"""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from sgfd.distill.fused import FusedRows, made_by_network
from sgfd.distill.interaction_metric import unit_scale_weight
from sgfd.distill.maker import Made, Task
from sgfd.distill.methods import Method
from sgfd.distill.networks import NEGATIVE_SLOPE
from sgfd.distill.settings import SGFDPlusSettings
from sgfd.distill.sgfd_plus import SGFDPlus, trained

HIDDEN_WIDTH = 256

METHOD = Method("mlp_student:mlp_student", SGFDPlusSettings, uses_interactions=True, fuses=True)


class MLPStudent(SGFDPlus):
    def __init__(self, start: Tensor, *others: Any) -> None:
        super().__init__(start, *others)
        d, width = start.shape
        out = nn.Linear(HIDDEN_WIDTH, d, bias=False)
        nn.init.zeros_(out.weight)
        self.beside = nn.Sequential(
            nn.Linear(width, HIDDEN_WIDTH), nn.LeakyReLU(NEGATIVE_SLOPE), out
        )

    def forward(self, rows: Tensor) -> Tensor:
        return super().forward(rows) + self.beside(rows)


def mlp_student(task: Task, settings: SGFDPlusSettings) -> Made:
    """Train it on all items; no figures."""
    features = task.catalog.features
    assert task.pairs is not None
    rows = FusedRows(features, task.standardisation, task.device, settings.input_normalised)
    start = unit_scale_weight(rows, task.pairs, settings).to(task.device)
    model = trained(start, rows, task.pairs, task, settings, task.work, MLPStudent)
    model.eval()
    return made_by_network(
        features, rows, lambda u: functional.normalize(model(u), dim=1), len(start)
    )
