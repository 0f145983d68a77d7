"""CLCRec: an encoder of content that is aligned, by contrast, to collaborative embeddings.

Wei, Wang, Li, Nie, Li, Li, Chua: Contrastive Learning for Cold-Start Recommendation, ACM MM 2021
(arXiv 2107.05315). Users and items have embeddings of their own; the encoder's output for an item,
f(u_i), is what a new item gets in place of one, and what is exported here. The encoder reads the
fused rows of `fused.py`.

The paper chooses the number of epochs by the recall of items that it holds out. So do we; then all
items are trained on for so many epochs, as new items' neighbours deserve.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sgfd.dataset import distinct
from sgfd.distill.fused import FusedRows, made_by_network
from sgfd.distill.held_out import HeldOutItems, hold_items_out
from sgfd.distill.maker import Made, Task
from sgfd.distill.networks import NEGATIVE_SLOPE
from sgfd.distill.pairs import TrainingPairs
from sgfd.distill.quality import measure
from sgfd.distill.settings import CLCRecSettings
from sgfd.distill.training import Trainable, fit, shuffled
from sgfd.jobs import Checkpoint, WorkFolder

Indices = NDArray[np.int64]


def clcrec(task: Task, settings: CLCRecSettings) -> Made:
    """Train the encoder beside users and items, and make what it gives for every item."""
    assert task.pairs is not None
    rows = FusedRows(task.catalog.features, task.standardisation, task.device)
    pairs = task.pairs
    figures: dict[str, Any] = {}
    held_out = hold_items_out(pairs, settings.held_out_share, task.seed)
    left, judge = pairs.without(held_out), HeldOutItems.of(pairs, held_out)
    if judge is not None and len(left):
        model, epochs = _trained(rows, left, task, settings, task.work, judge)
        if task.measured:
            # Of the very items that chose the epoch, which the name says.
            figures["held_out_recall@20"] = {
                "generic": judge.recall(rows.read_all),
                "encoder_at_its_best_epoch": judge.recall(
                    lambda items: rows.read_all(items, model.encoder)
                ),
            }
        figures["trained_epochs"] = epochs
        settings = replace(settings, epochs=max(epochs, 1))
    work = task.work.stage("all-items")
    model, _ = _trained(rows, pairs, task, settings, work, None)
    made = made_by_network(task.catalog.features, rows, model.encoder, settings.dimension)
    return replace(made, quality=measure(task, made) | figures)


class CLCRec(Trainable):
    """Embeddings of users and items, and the encoder f from D to d by one hidden layer.

    g(u, j) = exp(p_u . h_j / T) with h_j = z_j or, for a share of the items drawn anew each step,
    f(x_j); c(i, j) = exp(cos(z_i, f(x_j)) / T). With an interaction (u, i) and negatives j,

        L_UI = - log g(u, i) / (g(u, i) + sum_j g(u, j)),
        L_RE = - log c(i, i) / (c(i, i) + sum_j c(i, j)),
        L = lambda L_RE + (1 - lambda) L_UI + eta (|p_u|^2 + |z_i|^2).

    A step's interactions share their negatives; an item that the user had, or the interaction's
    own, is none.
    """

    settings: CLCRecSettings

    def __init__(self, width: int, n_users: int, n_items: int, settings: CLCRecSettings) -> None:
        super().__init__()
        self.settings = settings
        d = settings.dimension
        self.users, self.items = nn.Embedding(n_users, d), nn.Embedding(n_items, d)
        for table in (self.users, self.items):
            nn.init.xavier_normal_(table.weight)
        self.encoder = nn.Sequential(
            nn.Linear(width, settings.hidden_width),
            nn.LeakyReLU(NEGATIVE_SLOPE),
            nn.Linear(settings.hidden_width, d),
        )

    def loss(self, batch: "InteractionBatch") -> dict[str, Tensor]:
        settings = self.settings
        user, item = self.users(batch.users), self.items(batch.items)
        encoded, at = self.encoder(batch.rows), batch.positive
        by_content = torch.rand(len(item), 1).to(item.device) < settings.content_share
        hybrid = torch.where(by_content, encoded, item)
        # `item[at]` would add the gradients of an item's rows in an order that threads decide.
        own = item.index_select(0, at)
        nearness = {
            "user_item": user @ hybrid.T,
            "content_embedding": functional.normalize(own, dim=1)
            @ functional.normalize(encoded, dim=1).T,
        }
        parts = {
            name: functional.cross_entropy(
                (scores / settings.temperature).masked_fill(batch.excluded, -torch.inf), at
            )
            for name, scores in nearness.items()
        }
        penalty = (user.square().sum() + own.square().sum()) / len(user)
        return {
            "user_item": (1 - settings.alignment_weight) * parts["user_item"],
            "content_embedding": settings.alignment_weight * parts["content_embedding"],
            "regularization": settings.regularization * penalty,
        }


@dataclass(frozen=True)
class InteractionBatch:
    """b interactions and the c items that they are held against, their own among them.

    Attributes:
        users: (b,). items: (c,), of the items with interactions. rows: u (c, D).
        positive: (b,), the place of each one's item among the c.
        excluded: bool (b, c), what is no negative of an interaction.
    """

    users: Tensor
    items: Tensor
    rows: Tensor
    positive: Tensor
    excluded: Tensor


class InteractionReader:
    """Interactions in random order, b at a time."""

    def __init__(
        self, rows: FusedRows, pairs: TrainingPairs, task: Task, settings: CLCRecSettings
    ) -> None:
        self.rows, self.pairs, self.settings = rows, pairs, settings
        self.seed, self.device = task.seed, task.device
        self._users = np.repeat(np.arange(len(pairs.user_degrees)), pairs.user_degrees)

    def batches(self, epoch: int) -> list[Indices]:
        index = np.arange(len(self.pairs))
        return shuffled(index, self.settings.batch_size, self.seed, epoch)

    def read(self, batch: Indices) -> InteractionBatch:
        known = self.pairs.items
        random = np.random.default_rng(int(torch.randint(2**62, ())))
        user, item = self._users[batch], self.pairs.matrix.indices[batch].astype(np.int64)
        negatives = known[random.integers(0, len(known), self.settings.negatives)]
        items = distinct(np.concatenate([item, negatives]))
        positive = np.searchsorted(items, item)
        excluded = self.pairs.matrix[user][:, items].toarray() > 0
        drawn = np.isin(items, negatives)  # another interaction's item is no negative, if not drawn
        excluded |= ~drawn[None, :]
        excluded[np.arange(len(user)), positive] = False
        return InteractionBatch(
            torch.from_numpy(user).to(self.device),
            torch.from_numpy(np.searchsorted(known, items)).to(self.device),
            self.rows.read(items),
            torch.from_numpy(positive).to(self.device),
            torch.from_numpy(excluded).to(self.device),
        )


def _trained(
    rows: FusedRows,
    pairs: TrainingPairs,
    task: Task,
    settings: CLCRecSettings,
    work: WorkFolder | Checkpoint,
    judge: HeldOutItems | None,
) -> tuple[CLCRec, int]:
    """The model after its best epoch by the judge, and which one that was; after all without."""
    torch.manual_seed(task.seed)
    n_users = len(pairs.user_degrees)
    model = CLCRec(rows.width, n_users, len(pairs.items), settings).to(task.device)

    def missed() -> float:
        assert judge is not None
        return 1 - judge.recall(lambda items: rows.read_all(items, model.encoder))

    reader = InteractionReader(rows, pairs, task, settings)
    chosen = (missed, settings.patience) if judge is not None else (None, None)
    state = fit(model, reader, chosen[0], work, patience=chosen[1])
    return model.eval(), state.best_epoch
