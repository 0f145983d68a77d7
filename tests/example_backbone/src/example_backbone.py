"""A third party's backbone: a user is the mean of his items' vectors (FISM, Kabbur et al. 2013)."""

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from sgfd.recommenders import Backbone, BackboneSettings, Batch, Inputs
from sgfd.settings import CHECKED, Count


@dataclass(frozen=True, config=CHECKED)
class MeanVectorSettings(BackboneSettings):
    """Settings of the example."""

    embedding_dim: Count = 32
    """Width of the vectors."""


class MeanVector(Backbone):
    """score(u, i) = q_i . mean of p_j over the user's training items j; trained by BPR."""

    Settings: ClassVar[type[BackboneSettings]] = MeanVectorSettings
    uses_features: ClassVar[bool] = False
    negatives = 1

    def __init__(self, inputs: Inputs, settings: MeanVectorSettings) -> None:
        super().__init__(inputs, settings)
        self.offsets = torch.from_numpy(inputs.seen.offsets[:-1]).to(inputs.device)
        self.history = inputs.items
        self.inward = nn.Embedding(inputs.n_items, settings.embedding_dim)
        self.outward = nn.Embedding(inputs.n_items, settings.embedding_dim)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        users, items = self.embeddings()
        difference = items[batch.items] - items[batch.negatives[:, 0]]
        margin = (users[batch.users] * difference).sum(dim=1)
        return {"ranking": -functional.logsigmoid(margin).mean()}

    def embeddings(self) -> tuple[Tensor, Tensor]:
        weight = self.inward.weight
        users = functional.embedding_bag(self.history, weight, self.offsets, mode="mean")
        return users, self.outward.weight
