"""Most popular: every user gets the items with the most training interactions. The floor."""

from typing import ClassVar

import torch
from torch import Tensor

from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch
from sgfd.recommenders.inputs import Inputs


class MostPopular(Backbone):
    """score(u, i) = number of training interactions of i."""

    uses_features: ClassVar[bool] = False
    trained: ClassVar[bool] = False

    counts: Tensor

    def __init__(self, inputs: Inputs, settings: BackboneSettings) -> None:
        super().__init__(inputs, settings)
        self.n_users = inputs.n_users
        counts = torch.bincount(inputs.items, minlength=inputs.n_items).float()
        self.register_buffer("counts", counts)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError("most popular has nothing to train")

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Users are all 1 (U, 1), items their count (I, 1)."""
        return self.counts.new_ones(self.n_users, 1), self.counts[:, None]
