"""Nearest neighbour on features alone: nothing is trained. The yardstick for cold items."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch
from sgfd.recommenders.inputs import Inputs


class ContentNeighbours(Backbone):
    """score(u, i) = f_i . mean of f_j over the user's training items j.

    f_i has every modality's features as a unit vector, side by side, and norm 1 as a whole;
    modalities that an item lacks are 0. An item without any scores 0.
    """

    needs_features: ClassVar[bool] = True
    scores_new_items: ClassVar[bool] = True
    trained: ClassVar[bool] = False

    users: Tensor
    items: Tensor

    def __init__(self, inputs: Inputs, settings: BackboneSettings) -> None:
        super().__init__(inputs, settings)
        units = [functional.normalize(m.values, dim=1) for m in inputs.features.values()]
        items = functional.normalize(torch.cat(units, dim=1), dim=1)
        offsets = torch.from_numpy(inputs.seen.offsets[:-1]).to(inputs.device)
        users = functional.embedding_bag(inputs.items, items, offsets, mode="mean")
        self.register_buffer("users", users)
        self.register_buffer("items", items)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError("there is nothing to train")

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """The users' means (U, D) and the items' features (I, D)."""
        return self.users, self.items
