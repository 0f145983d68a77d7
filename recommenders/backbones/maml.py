"""MAML: metric learning with an attention over the dimensions, by user, item and features.

Not meta-learning. Liu, Cheng, Sun, Wang, Nie, Kankanhalli: User Diverse Preference Modeling by
Multimodal Attentive Metric Learning, MM 2019, arXiv 1908.07738.
"""

from itertools import pairwise, product
from typing import Annotated, Any, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional

from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.losses import covariance_penalty, warp_hinge
from sgfd.recommenders.rows import into_unit_ball, rows_of
from sgfd.settings import CHECKED, Count, NotNegative, Positive, Range, Share

HIDDEN = (256, 128, 128)  # widths of the projection's hidden layers
PAIRS_A_SLICE = 4_096  # scored at once: their 5 d hidden entries each then stay in the cache
LEAST_SQUARES = 1e-24  # of the views of a pair, which are divided by their root


@dataclass(frozen=True, config=CHECKED)
class MAMLSettings(BackboneSettings):
    """Settings of MAML as its authors publish them, but for `train_attention`.

    Their code leaves the attention as it starts, and declares `attention_weight_decay` without
    adding it to its loss.
    """

    batch_size: Count = 256
    """Training interactions a step."""
    embedding_dim: Count = 128
    """Width of the points."""
    margin: Annotated[Positive, Range(0.1, 2.0)] = 1.0
    """How much farther than a liked item any other must be."""
    sampled: Count = 4
    """Negatives of each interaction, of which the nearest counts (W)."""
    content_weight: Annotated[NotNegative, Range(1e-2, 10.0, log=True, features=True)] = 1.0
    """Weight of the feature loss."""
    covariance_weight: Annotated[NotNegative, Range(0.1, 100.0, log=True)] = 5.0
    """Weight of the penalty on correlated dimensions."""
    dropout: Annotated[Share, Range(0.0, 0.5, features=True)] = 0.2
    """Share of the projection's hidden entries that are dropped."""
    attention_weight_decay: Annotated[NotNegative, Range(1.0, 1000.0, log=True)] = 100.0
    """Weight decay of the attention's two matrices, where it is trained."""
    train_attention: bool = True
    """Off, the attention stays as it starts, as in the published code."""


class MAML(Backbone):
    """score(u, i) = -sum_d (w_d (u_d - i_d))^2, users and items in the unit ball.

        projection  f_i = MLP(unit features side by side), hidden widths 256, 128 and 128, to norm 1
                    at most; items start there
        attention   w = d softmax(relu(W2 tanh(W1 unit([u; i; f_i])))), hidden width 5 d
        metric      hinge of margin and the nearest negative, weighted by log(1 + rank)
        features    ||i - f_i||^2
        decay       attention_weight_decay / 2 (||W1||^2 + ||W2||^2), shared by the batch's pairs
        covariance  of the points of the batch, as in CML's paper; in the published code of all

    All of it is trained: projection, attention and points (in the published code the first two
    are never handed to the optimiser). An attention that is trained without decay knows each pair
    well enough to learn the training pairs by heart within a few epochs. An item that lacks all
    features has f_i = 0 and no feature loss; without features the attention sees [u; i] alone.

    Every pair has weights of its own, so scores are `rescore`'s. While it trains, the model is
    chosen on the 50 nearest unseen items by plain distance, rescored; a run's figures are exact.
    """

    Settings: ClassVar[type[BackboneSettings]] = MAMLSettings
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        name: {"learning_rate": 1e-3} for name in ("office", "clothing", "toys-games")
    }
    similarity = "l2"
    shortlist = 50

    content: Tensor
    has_content: Tensor

    def __init__(self, inputs: Inputs, settings: MAMLSettings) -> None:
        super().__init__(inputs, settings)
        self.settings = settings
        self.negatives = settings.sampled
        d = settings.embedding_dim
        content = functional.normalize(inputs.side_by_side(), dim=1)
        self.register_buffer("content", content, persistent=False)
        self.register_buffer("has_content", inputs.has_features(), persistent=False)
        self.users = nn.Embedding(inputs.n_users, d)
        self.items = nn.Embedding(inputs.n_items, d)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=1 / d)
        self.projection = None
        if inputs.features:
            widths = (content.shape[1], *HIDDEN, d)
            self.projection = nn.ModuleList(nn.Linear(*sides) for sides in pairwise(widths))
        views = 2 if self.projection is None else 3
        self.inward = nn.Linear(views * d, 5 * d)
        self.outward = nn.Linear(5 * d, d)
        if not settings.train_attention:
            self.inward.requires_grad_(False)
            self.outward.requires_grad_(False)
        self.to(inputs.device)  # where the features are that items start at
        with torch.no_grad():
            self.eval()  # without dropout
            start = self._projected(content, self.has_content)
            if start is not None:
                self.items.weight[self.has_content] = start[self.has_content]
            self.train()

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Metric, feature and covariance loss, and the decay of a trained attention."""
        pairs = torch.cat([batch.items[:, None], batch.negatives], dim=1)  # (B, 1 + W)
        # An item is drawn by several users of a batch: what is its own is computed once.
        items, place = torch.unique(pairs, return_inverse=True)
        user = rows_of(self.users.weight, batch.users)
        own, there = rows_of(self.items.weight, items), self.has_content[items]
        content = self._projected(self.content[items], there)
        from_user, user_squares = self._inward_user(user)
        from_items, item_squares = self._inward_item(own, content)
        item = _by_pair(own, place)
        distance = attentive_distance(
            from_user[:, None] + _by_pair(from_items, place),
            user_squares[:, None] + item_squares[place],
            user[:, None] - item,
            self.inward.bias,
            self.outward.weight,
            self.outward.bias,
        )
        n_items = self.items.num_embeddings
        parts = {
            "metric": warp_hinge(distance[:, 0], distance[:, 1:], self.settings.margin, n_items),
            "covariance": self.settings.covariance_weight
            * covariance_penalty(torch.cat([user, item[:, 0]])),
        }
        if self.settings.train_attention:
            size = self.inward.weight.square().sum() + self.outward.weight.square().sum()
            share = self.settings.attention_weight_decay / (2 * len(batch.users))
            parts["attention weight decay"] = share * size
        if content is not None:
            apart = (own - content).square().sum(dim=1) * there
            parts["features"] = (
                self.settings.content_weight * apart[place].sum() / there[place].sum().clamp(min=1)
            )
        return parts

    def after_step(self) -> None:
        """Back into the unit ball."""
        into_unit_ball(self.users.weight, self.items.weight)

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """The points of users (U, d) and items (I, d)."""
        return self.users.weight, self.items.weight

    def rescore(self, users: Tensor, items: Tensor) -> Tensor:
        """Minus the distances of users (B,) to items (B, C), or to all items (I,)."""
        content = self._projected(self.content, self.has_content)
        from_users, user_squares = self._inward_user(self.users(users))
        of_items: tuple[Tensor, ...] = (
            self.items.weight,
            *self._inward_item(self.items.weight, content),
        )
        same_for_all, n_items = items.dim() == 1, items.shape[-1]
        if same_for_all:
            of_items = tuple(rows[items] for rows in of_items)
        width = max(1, min(PAIRS_A_SLICE, n_items))
        size = PAIRS_A_SLICE // width
        scores = from_users.new_empty(len(users), n_items)
        for row, column in product(range(0, len(users), size), range(0, n_items, width)):
            part, columns = slice(row, row + size), slice(column, column + width)
            chosen = columns if same_for_all else items[part, columns]
            item, from_item, item_squares = (rows[chosen] for rows in of_items)
            *_, logits = _attention(
                from_users[part][:, None] + from_item,
                user_squares[part][:, None] + item_squares,
                self.inward.bias,
                self.outward.weight,
                self.outward.bias,
            )
            apart = self.users(users[part])[:, None] - item
            apart *= logits.softmax(dim=2)
            scores[part, columns] = -torch.linalg.vecdot(apart, apart)
        return scores * self.settings.embedding_dim**2

    # The first layer of a unit vector [u; i; f] / n is a sum over its views, divided by n: what a
    # user adds to it costs once for him, not once for each pair.

    def _inward_user(self, user: Tensor) -> tuple[Tensor, Tensor]:
        """What users (..., d) add to the first layer (..., 5 d), and their squared lengths."""
        d = self.settings.embedding_dim
        return user @ self.inward.weight[:, :d].T, user.square().sum(dim=-1)

    def _inward_item(self, item: Tensor, content: Tensor | None) -> tuple[Tensor, Tensor]:
        """What items and their content (..., d) add to it, and their squared lengths."""
        d = self.settings.embedding_dim
        views = item if content is None else torch.cat([item, content], dim=-1)
        return views @ self.inward.weight[:, d:].T, views.square().sum(dim=-1)

    def _projected(self, content: Tensor, there: Tensor) -> Tensor | None:
        """f of items (..., d), clipped to norm 1; 0 where an item has no features."""
        if self.projection is None:
            return None
        *hidden, last = self.projection
        for layer in hidden:
            content = functional.leaky_relu(layer(content))
            if self.training and self.settings.dropout:
                # A third of the time of torch's own dropout on a CPU. An item that is in a batch
                # more than once is dropped alike.
                kept = torch.rand_like(content) >= self.settings.dropout
                content = content * (kept / (1 - self.settings.dropout))
        projected = last(content)
        norm = torch.linalg.vector_norm(projected, dim=-1, keepdim=True)
        clipped: Tensor = projected * (there.unsqueeze(-1) / norm.clamp(min=1))
        return clipped


def _by_pair(rows: Tensor, place: Tensor) -> Tensor:
    """Rows (n, d) where the pairs have them: (B, C, d) for places (B, C)."""
    return rows_of(rows, place.flatten()).view(*place.shape, -1)


def _attention(
    first: Tensor, squares: Tensor, bias: Tensor, outward: Tensor, outward_bias: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """1 / the views' length, (...); the hidden layer, as (1 + tanh) / 2; and relu of the second,
    whose softmax are the weights.

    torch's tanh takes 3.6 times as long as its sigmoid on a CPU, and tanh(x) = 2 sigmoid(2x) - 1.

    Args:
        first: what the views add to the first layer, (..., 5 d). squares: of their length, (...).
        bias: (5 d,). outward, outward_bias: (d, 5 d) and (d,).
    """
    inverse = squares.clamp(min=LEAST_SQUARES).rsqrt_()
    hidden = torch.addcmul(2 * bias, first, 2 * inverse.unsqueeze(-1)).sigmoid_()
    logits = functional.linear(hidden, 2 * outward, outward_bias - outward.sum(dim=1))
    return inverse, hidden, logits.relu_()


def attentive_distance(first: Tensor, squares: Tensor, apart: Tensor, *layers: Tensor) -> Tensor:
    """sum_d (w_d apart_d)^2 of pairs, (B, C), one node of autograd.

    Args:
        first: what the views add to the first layer, (B, C, 5 d). squares: of their length, (B, C).
        apart: (B, C, d). layers: as `_attention` has them.
    """
    distance: Tensor = _AttentiveDistance.apply(  # type: ignore[no-untyped-call]
        first.flatten(0, 1), squares.flatten(), apart.flatten(0, 1), *layers
    )
    return distance.view(squares.shape)


class _AttentiveDistance(torch.autograd.Function):
    """With p = 2 g w apart of gradient g: d/d apart = p w, and d/d logits = q - w sum(q) / d where
    the logits are positive, q = p w apart."""

    @staticmethod
    def forward(
        ctx: Any,
        first: Tensor,
        squares: Tensor,
        apart: Tensor,
        bias: Tensor,
        outward: Tensor,
        outward_bias: Tensor,
    ) -> Tensor:
        inverse, hidden, logits = _attention(first, squares, bias, outward, outward_bias)
        weight = logits.softmax(dim=1).mul_(len(outward))
        weighted = weight * apart
        ctx.save_for_backward(first, inverse, hidden, logits, weight, weighted, outward)
        distance: Tensor = torch.linalg.vecdot(weighted, weighted)
        return distance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        first, inverse, hidden, logits, weight, weighted, outward = ctx.saved_tensors
        pull = weighted * (2 * gradients[0].unsqueeze(1))
        of_apart = pull * weight
        of_logits = pull.mul_(weighted)
        total = of_logits.sum(dim=1, keepdim=True)
        of_logits = of_logits.addcmul_(weight, total, value=-1 / len(outward)).mul_(logits > 0)
        of_outward_bias = of_outward = None
        if any(ctx.needs_input_grad[4:]):
            of_outward_bias = of_logits.sum(dim=0)
            of_outward = 2 * (of_logits.T @ hidden) - of_outward_bias.unsqueeze(1)
        of_hidden = of_logits @ (4 * outward)  # 4 s (1 - s) is the slope of tanh
        of_first = torch.ops.aten.sigmoid_backward(of_hidden, hidden)
        of_bias = of_first.sum(dim=0)
        of_squares = torch.linalg.vecdot(of_first, first) * inverse**3 / -2
        of_first *= inverse.unsqueeze(1)
        return of_first, of_squares, of_apart, of_bias, of_outward, of_outward_bias
