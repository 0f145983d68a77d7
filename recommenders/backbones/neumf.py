"""NeuMF: matrix factorisation and a multi-layer perceptron, fused.

He, Liao, Zhang, Nie, Hu, Chua: Neural Collaborative Filtering, WWW 2017, arXiv 1708.05031. Equation
numbers refer to that paper.
"""

from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.losses import squared_norm
from sgfd.recommenders.rows import rows_of
from sgfd.settings import CHECKED, Count, NotNegative, Range, Share

PAIRS_A_SLICE = 20_000  # scored at once: the perceptron's first layer then stays in the cache


@dataclass(frozen=True, config=CHECKED)
class NeuMFSettings(BackboneSettings):
    """Settings of NeuMF; defaults of the paper's section 4.1."""

    batch_size: Count = 256
    """Training interactions a step, each with its negatives."""
    factors: Annotated[Count, Range(8, 64, log=True)] = 32
    """Width of the last layer of either part (predictive factors; 8 to 64 in the paper)."""
    layers: Annotated[Count, Field(le=12), Range(1, 4)] = 3
    """Hidden layers of the perceptron, each half as wide as the one before."""
    sampled: Count = 4
    """Negatives of each interaction."""
    dropout: Annotated[Share, Range(0.0, 0.5)] = 0.0
    """Share of the perceptron's hidden entries that are dropped."""
    regularization: NotNegative = 0.0
    """Weight of the squared vectors of the batch, not of their halves."""


class NeuMF(Backbone):
    """score(u, i) = h . [p_u * q_i ; MLP([p'_u ; q'_i])] (eq. 12).

    Trained as a classifier: binary cross-entropy of interactions and sampled negatives (eq. 7).
    The paper's model has no features: they are left out. The perceptron's first layer is a
    sum of a user's and an item's part, which is what makes scoring all pairs affordable.
    """

    Settings: ClassVar[type[BackboneSettings]] = NeuMFSettings
    uses_features: ClassVar[bool] = False
    signs: Tensor

    def __init__(self, inputs: Inputs, settings: NeuMFSettings) -> None:
        super().__init__(inputs, settings)
        self.settings = settings
        self.negatives = settings.sampled
        wide = settings.factors * 2 ** (settings.layers - 1)  # half of the first layer's input
        # Each row p, then p': one lookup a side, and one table for the optimiser.
        self.parts: list[int] = [settings.factors, wide]
        self.users = nn.Embedding(inputs.n_users, sum(self.parts))
        self.items = nn.Embedding(inputs.n_items, sum(self.parts))
        widths = [settings.factors * 2**k for k in range(settings.layers, -1, -1)]
        self.hidden = nn.ModuleList(
            nn.Linear(inside, outside) for inside, outside in pairwise(widths)
        )
        self.output = nn.Linear(2 * settings.factors, 1)
        # -ln sigmoid(x) = softplus(-x) of an interaction, -ln(1 - sigmoid(x)) of its negatives.
        signs = torch.tensor([[-1.0]] + [[1.0]] * settings.sampled)
        self.register_buffer("signs", signs, persistent=False)
        nn.init.normal_(self.users.weight, std=0.01)
        nn.init.normal_(self.items.weight, std=0.01)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Binary cross-entropy of the interactions and their negatives (eq. 7)."""
        users = rows_of(self.users.weight, batch.users)
        items = rows_of(self.items.weight, batch.candidates)
        user, deep_user = torch.split(users, self.parts, dim=1)
        item, deep_item = torch.split(items, self.parts, dim=1)
        from_users, from_items = self._first_layer(deep_user, deep_item)
        # Each user's vectors meet those of the item and of every negative, (1 + W, B, ...).
        of_product, of_perceptron = self._output_weights()
        from_items = from_items.view(-1, *from_users.shape)
        logits = (user * item.view(-1, *user.shape)) @ of_product
        logits = logits + self._perceptron(from_users, from_items, of_perceptron)
        parts = {"classification": functional.softplus(logits * self.signs).mean()}
        if self.settings.regularization:
            penalty = squared_norm(users, items)
            parts["regularization"] = 2 * self.settings.regularization * penalty
        return parts

    def rescore(self, users: Tensor, items: Tensor) -> Tensor:
        """Logits of users (B,) with items (B, C), or with all items (I,): (B, C) or (B, I)."""
        user, deep_user = torch.split(self.users(users), self.parts, dim=1)
        item, deep_item = torch.split(self.items.weight, self.parts, dim=1)
        from_users, from_items = self._first_layer(deep_user, deep_item)
        of_product, of_perceptron = self._output_weights()
        weighted = user * of_product
        size = max(1, PAIRS_A_SLICE // items.shape[-1])
        scores: Tensor = weighted.new_empty(len(users), items.shape[-1])
        for at in range(0, len(users), size):
            part = slice(at, at + size)
            chosen = items if items.dim() == 1 else items[part]
            product = (weighted[part][:, None] @ functional.embedding(chosen, item).mT)[:, 0]
            from_chosen = functional.embedding(chosen, from_items)
            from_user = from_users[part][:, None]
            scores[part] = product + self._perceptron(from_user, from_chosen, of_perceptron)
        return scores

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """The vectors of both parts side by side, for neighbours: (U, ...) and (I, ...)."""
        return self.users.weight, self.items.weight

    def _first_layer(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """What users (..., wide) and items (..., wide) add to the perceptron's first layer."""
        first = self.hidden[0]
        assert isinstance(first, nn.Linear)
        of_users, of_items = first.weight.chunk(2, dim=1)
        return (
            functional.linear(users, of_users),
            functional.linear(items, of_items, first.bias),
        )

    def _output_weights(self) -> tuple[Tensor, Tensor]:
        """The last layer's weights of p * q and of the perceptron, (factors,) each."""
        of_product, of_perceptron = self.output.weight.view(2, -1).unbind()
        return of_product, of_perceptron

    def _perceptron(self, from_user: Tensor, from_item: Tensor, weights: Tensor) -> Tensor:
        """What the perceptron and the bias add to a score (...): from the first layer's parts, and
        the last layer's weights (factors,)."""
        deep = (from_user + from_item).relu_()
        scored = deep.shape[:-1]
        deep = deep.flatten(0, -2)  # a list of pairs: in place on a view costs autograd copies
        for layer in self.hidden[1:]:
            deep = functional.dropout(deep, self.settings.dropout, self.training)
            deep = layer(deep).relu_()
        return (deep @ weights + self.output.bias).view(scored)
