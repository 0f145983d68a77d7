"""BM3: bootstrapped multi-modal recommendation, a backbone that needs no negatives.

Zhou, Zhou, Liu, Zeng, Miao, Wang, You, Jiang: Bootstrap Latent Representations for Multi-modal
Recommendation, WWW 2023, arXiv 2207.05969. Equation numbers refer to that paper.
"""

from typing import Annotated, Any, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch
from sgfd.recommenders.graph import BipartiteGraph
from sgfd.recommenders.inputs import Inputs
from sgfd.settings import CHECKED, Count, NotNegative, Positive, Range, Share

EPSILON = 1e-8  # least norm that a vector is divided by
MASKS = 4096  # dropout masks to choose from


@dataclass(frozen=True, config=CHECKED)
class BM3Settings(BackboneSettings):
    """Settings of BM3; the grid of the paper's section 4.1.4 is in the descriptions."""

    learning_rate: Annotated[Positive, Range(1e-4, 1e-1, log=True)] = 1e-3
    """Step size of Adam."""
    patience: Count = 50
    """Stop after so many epochs without a better Recall@20, which rises slowly and with noise."""
    embedding_dim: Count = 128
    """Width of user and item vectors."""
    layers: Annotated[Count, Range(1, 2)] = 1
    """Rounds of propagation on the user-item graph (1 or 2 in the paper)."""
    dropout: Annotated[Share, Range(0.1, 0.7)] = 0.5
    """Share of a target's entries that are dropped (0.3 or 0.5 in the paper)."""
    contrast_weight: Annotated[NotNegative, Range(0.1, 10.0, log=True, features=True)] = 2.0
    """Weight of the modality losses (the authors' cl_weight)."""
    item_weight: Annotated[NotNegative, Range(0.0, 1.0, features=True)] = 0.0
    """Weight of a loss that lets items learn from their content; the paper has none (0)."""
    regularization: Annotated[NotNegative, Range(1e-4, 1.0, log=True)] = 0.1
    """Weight of the norms of users and items (0.1, 0.01 or 0.001 in the paper)."""


class BM3(Backbone):
    """Two views of each node, one of them perturbed by dropout and without gradient.

    With h the propagated vectors, p a linear predictor and t(x) = dropout(x) without gradient:

        interaction   2 - cos(p(h_u), t(h_i)) - cos(p(h_i), t(h_u))
        alignment_m   1 - cos(p(v_im), t(h_i))        v_im = W_m z_im
        masking_m     1 - cos(p(v_im), t(v_im))
        item_m        1 - cos(p(h_i), t(v_im))        ours, where item_weight is not 0
        score(u, i) = p(h_u) . p(h_i)

    In the paper's losses h_i is a target of the content and has no gradient from it: what features
    change is W_m, which ranks nothing, and p, which serves the interactions too. So they reach the
    ranking through p alone; `item_weight` opens the direct way (figures in docs/results).

    Without features only the interaction loss remains. An item that lacks a modality takes no
    part in that modality's losses. The presets are the rates at which SGFD's authors train it
    together with their teacher and student.
    """

    Settings: ClassVar[type[BackboneSettings]] = BM3Settings
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "office": {"learning_rate": 1e-1},
        "clothing": {"learning_rate": 1e-2},
        "toys-games": {"learning_rate": 1e-2},
    }

    def __init__(self, inputs: Inputs, settings: BM3Settings) -> None:
        super().__init__(inputs, settings)
        self.settings = settings
        d = settings.embedding_dim
        self.graph = BipartiteGraph(inputs)
        self.features = inputs.features
        self.drop = MaskPool(settings.dropout, d, inputs.device)
        self.users = nn.Embedding(inputs.n_users, d)
        self.items = nn.Embedding(inputs.n_items, d)
        self.predictor = nn.Linear(d, d)
        self.projections = nn.ModuleList(  # in the order of the features: any name will do
            nn.Linear(modality.dimension, d) for modality in inputs.features.values()
        )
        for embedding in (self.users, self.items):
            nn.init.xavier_uniform_(embedding.weight)
        for linear in (self.predictor, *self.projections):
            assert isinstance(linear, nn.Linear)
            nn.init.xavier_normal_(linear.weight)

    def propagate(self) -> tuple[Tensor, Tensor]:
        """Mean over the rounds of D^-1/2 A D^-1/2 x, round 0 included: users (U, d), items (I, d).

        Items also add their own embedding (the residual connection of eq. 5).
        """
        users, items = self.graph.mean_of_rounds(
            self.users.weight, self.items.weight, self.settings.layers
        )
        return users, items + self.items.weight

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Interaction loss (eq. 9, 10), modality losses (eq. 11, 12), regularisation (eq. 14)."""
        users, items = self.propagate()
        user, user_norm = rows_and_norm(users, batch.users)  # (B, d), scalar
        item, item_norm = rows_and_norm(items, batch.items)
        content = [
            projection(modality.values.index_select(0, batch.items))
            for projection, modality in zip(self.projections, self.features.values(), strict=True)
        ]
        views = [user, item, *content]
        predicted = [self.predictor(view) for view in views]
        target = [self.drop(view.detach()) for view in views]
        modalities = range(2, 2 + len(content))
        alignment, masking = [(m, 1) for m in modalities], [(m, m) for m in modalities]
        pairs = ((0, 1), (1, 0), *alignment, *masking)
        if self.settings.item_weight:
            pairs += tuple((1, m) for m in modalities)
        cos = dict(zip(pairs, cosines(predicted, target, pairs), strict=True))  # (B,) each

        parts = {"interaction": 2 - cos[0, 1].mean() - cos[1, 0].mean()}
        for m, (name, modality) in zip(modalities, self.features.items(), strict=True):
            present = modality.present[batch.items].float()
            share = present / present.sum().clamp(min=1)
            weight = self.settings.contrast_weight * share
            parts[f"{name} alignment"] = weight @ (1 - cos[m, 1])
            parts[f"{name} masking"] = weight @ (1 - cos[m, m])
            if self.settings.item_weight:
                parts[f"{name} item"] = self.settings.item_weight * share @ (1 - cos[1, m])
        parts["regularization"] = (
            self.settings.regularization * (user_norm + item_norm) / len(items)
        )
        return parts

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """p(h) of users (U, d) and items (I, d)."""
        users, items = self.propagate()
        return self.predictor(users), self.predictor(items)


class MaskPool:
    """Dropout whose masks are drawn once, and chosen at random for each row.

    A mask is chosen anew for every row and step; each entry is dropped with probability `share`.
    The kept entries are not rescaled: targets are only compared by direction. Fresh
    randomness for every entry would take a tenth of the training time on a CPU.
    """

    def __init__(self, share: float, width: int, device: torch.device) -> None:
        self.masks = (torch.rand(MASKS, width, device=device) >= share).float()

    def __call__(self, x: Tensor) -> Tensor:
        """`x` (n, width) with a random share of its entries at 0."""
        chosen = torch.randint(len(self.masks), (len(x),), device=x.device)
        return self.masks.index_select(0, chosen).mul_(x)


def cosines(
    online: list[Tensor], target: list[Tensor], pairs: tuple[tuple[int, int], ...]
) -> tuple[Tensor, ...]:
    """Cosines, row by row, of views online[a] with views target[b], for each pair (a, b).

    Args:
        online: (B, d) each. target: (B, d) each, taken without gradient.

    Returns:
        (B,) for each pair.
    """
    rows: tuple[Tensor, ...] = _Cosines.apply(pairs, *online, *target)  # type: ignore[no-untyped-call]
    return rows


def rows_and_norm(table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Some rows of a table (n, d), and the Frobenius norm of the whole of it."""
    pair: tuple[Tensor, Tensor] = _RowsAndNorm.apply(table, index)  # type: ignore[no-untyped-call]
    return pair


class _Cosines(torch.autograd.Function):
    """With unit vectors a of online and t of target: d cos / d online = (t - cos a) / |online|.

    In closed form, because the chain of small operations that autograd would keep takes as
    long as the linear layers do.
    """

    @staticmethod
    def forward(ctx: Any, pairs: tuple[tuple[int, int], ...], *views: Tensor) -> tuple[Tensor, ...]:
        half = len(views) // 2
        inverse = [
            torch.linalg.vector_norm(view, dim=1).clamp_(min=EPSILON).reciprocal_()
            for view in views
        ]
        scales = [inverse[a] * inverse[half + b] for a, b in pairs]
        product = torch.empty_like(views[0])
        cos = [
            torch.mul(views[a], views[half + b], out=product).sum(dim=1).mul_(scale)
            for (a, b), scale in zip(pairs, scales, strict=True)
        ]
        ctx.pairs = pairs
        ctx.save_for_backward(*views, *inverse[:half], *scales, *cos)
        return tuple(cos)

    @staticmethod
    def backward(ctx: Any, *weights: Tensor) -> tuple[Tensor | None, ...]:
        pairs, saved = ctx.pairs, list(ctx.saved_tensors)
        cos, scales = saved[-len(pairs) :], saved[-2 * len(pairs) : -len(pairs)]
        half = (len(saved) - 2 * len(pairs)) // 3
        online, target, inverse = saved[:half], saved[half : 2 * half], saved[2 * half : 3 * half]
        along = [torch.zeros_like(norm) for norm in inverse]
        for (a, _), weight, c in zip(pairs, weights, cos, strict=True):
            along[a].addcmul_(weight, c)
        gradients = [
            view * (total * norm * norm).neg_().unsqueeze(1)
            for view, total, norm in zip(online, along, inverse, strict=True)
        ]
        for (a, b), weight, scale in zip(pairs, weights, scales, strict=True):
            gradients[a].addcmul_(target[b], (weight * scale).unsqueeze(1))
        return None, *gradients, *(None for _ in target)


class _RowsAndNorm(torch.autograd.Function):
    """d|x| / dx = x / |x|; the gradients of rows and norm are summed in one table."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        norm = torch.linalg.vector_norm(table)
        ctx.save_for_backward(table, index, norm)
        return table.index_select(0, index), norm

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        table, index, norm = ctx.saved_tensors
        rows, of_norm = gradients
        gradient: Tensor = table * (of_norm / norm.clamp(min=EPSILON))
        return gradient.index_add_(0, index, rows), None
