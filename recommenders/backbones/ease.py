"""EASE: a linear item-item model in closed form, told of the features by a kernel.

Steck: Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, arXiv 1905.03375. Features
enter as in CEASE (Jeunen, Van Balen, Goethals: Closed-Form Models for Collaborative Filtering with
Side-Information, RecSys 2020), as rows that the model must reproduce beside the users', here
through a kernel.
"""

from typing import Annotated, ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from sgfd.jobs import JobError, usable_memory
from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch, UnusableSettingsError
from sgfd.recommenders.graph import Bags
from sgfd.recommenders.inputs import Inputs
from sgfd.settings import CHECKED, NotNegative, Positive, Range

BLOCK_ITEMS = 1024  # columns of the item-item matrix that are made at a time
MATRICES = 5  # of I x I that exist at once while the weights are solved for, LAPACK's among them


@dataclass(frozen=True, config=CHECKED)
class EASESettings(BackboneSettings):
    """Settings of EASE, chosen on the valid parts of Office and MovieLens 100K."""

    user_exponent: Annotated[NotNegative, Range(0.0, 1.0)] = 0.6
    """A user of n interactions weighs n^-user_exponent (Steck: 0)."""
    regularization: Annotated[Positive, Range(2.0, 200.0, log=True)] = 20.0
    """Weight of the squared weights (lambda of eq. 3), in units of an item's mean weight."""
    content_weight: Annotated[NotNegative, Range(0.05, 5.0, log=True, features=True)] = 0.4
    """Weight of reproducing the features, in the same units (alpha of CEASE)."""
    kernel_degree: Annotated[Positive, Range(1.0, 4.0, features=True)] = 2.0
    """Power that the cosine of two items' features is raised to: the higher, the fewer items
    are alike."""


class EASE(Backbone):
    """score(u, .) = r_u B, r_u the user's training items as 0 and 1. Nothing is trained.

    B is the minimum, under diag B = 0, of

        1/g ||D^-a/2 (A - A B)||^2 + content_weight ||F - F B||^2 + regularization ||B||^2

    with A (U, I) the training interactions, D the users' degrees, a the user exponent, g the mean
    diagonal of A' D^-a A over the items that have interactions, and F any features whose inner
    products F'F are K: the mean over the modalities of max(0, cos(f_i, f_j))^kernel_degree, 0
    where an item lacks the modality. So (Steck, eq. 8)

        B = I - P diag(P)^-1,   P = (A' D^-a A / g + content_weight K + regularization I)^-1.

    Cosines that are cut off at 0 may leave no such F: on Office and MovieLens there is none below
    kernel_degree 2. B is then what the last line says, as long as the inverse is of a positive
    definite matrix.

    Memory is 20 bytes for each pair of items, and time grows with their number's cube: 2,400
    take less than a second on two cores, 23,000 more than a minute. Items without interactions are
    scored by K.
    """

    Settings: ClassVar[type[BackboneSettings]] = EASESettings
    scores_new_items: ClassVar[bool] = True
    trained: ClassVar[bool] = False

    weights: Tensor

    def __init__(self, inputs: Inputs, settings: EASESettings) -> None:
        super().__init__(inputs, settings)
        self.inputs = inputs
        _refuse_too_many(inputs.n_items, inputs.device)
        matrix = co_interactions(inputs, settings.user_exponent)
        warm = matrix.diagonal() > 0
        if warm.any():
            matrix /= matrix.diagonal()[warm].mean()
        add_kernel(matrix, inputs, settings.content_weight, settings.kernel_degree)
        matrix.diagonal().add_(settings.regularization)
        # Not stored with a run: it follows from the inputs, and is far larger than they are.
        self.register_buffer("weights", item_weights(matrix), persistent=False)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        raise NotImplementedError("there is nothing to train")

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """A low-rank form of the scores, A U S^1/2 (U, q) and V S^1/2 (I, q), B ~ U S V'; for
        neighbours."""
        weights, device = self.weights, self.weights.device
        with torch.random.fork_rng([device] if weights.is_cuda else [], device_type=device.type):
            torch.manual_seed(0)
            left, sizes, right = torch.svd_lowrank(weights, min(64, len(weights)))
        everybody = torch.arange(self.inputs.n_users, device=device)
        return self._sums(everybody, left * sizes.sqrt()), right * sizes.sqrt()

    def rescore(self, users: Tensor, items: Tensor) -> Tensor:
        """Rows of A B for users (B,): (B, I) for all items (I,), (B, C) for items (B, C)."""
        scores = self._sums(users, self.weights)
        return scores[:, items] if items.dim() == 1 else scores.gather(1, items)

    def _sums(self, users: Tensor, table: Tensor) -> Tensor:
        """Sums of the rows (I, d) of a table over the training items of users (B,), (B, d)."""
        sets = self.inputs.seen.take(users.cpu().numpy())
        items, offsets = (
            torch.from_numpy(part).to(table.device) for part in (sets.items, sets.offsets[:-1])
        )
        return functional.embedding_bag(items, table, offsets, mode="sum")


def co_interactions(inputs: Inputs, user_exponent: float) -> Tensor:
    """A' D^-a A (I, I): each user's pairs of items, weighed by his degree."""
    degree = torch.bincount(inputs.users, minlength=inputs.n_users)
    weight = degree[inputs.users].float() ** (-user_exponent / 2)
    to_users = Bags(inputs.users, inputs.items, weight, inputs.n_users)
    to_items = Bags(inputs.items, inputs.users, weight, inputs.n_items)
    matrix = torch.zeros(inputs.n_items, inputs.n_items, device=inputs.device)
    for start in range(0, inputs.n_items, BLOCK_ITEMS):
        columns = matrix[:, start : start + BLOCK_ITEMS]
        chosen = torch.zeros_like(columns)
        chosen[start : start + BLOCK_ITEMS].fill_diagonal_(1)
        columns.copy_(to_items @ (to_users @ chosen))
    return matrix


def add_kernel(matrix: Tensor, inputs: Inputs, weight: float, degree: float) -> None:
    """Add weight K (see `EASE`) to a matrix (I, I) in place."""
    for modality in inputs.features.values():
        unit = functional.normalize(modality.values, dim=1)
        for start in range(0, inputs.n_items, BLOCK_ITEMS):
            rows = slice(start, start + BLOCK_ITEMS)
            alike = functional.relu(unit[rows] @ unit.T).pow_(degree)
            matrix[rows].add_(alike, alpha=weight / len(inputs.features))


def item_weights(matrix: Tensor) -> Tensor:
    """B = I - P diag(P)^-1 for P the inverse of a positive definite matrix (I, I).

    Raises:
        UnusableSettingsError: it is not positive definite.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed:
        raise UnusableSettingsError(
            "ease",
            "its equations have no solution",
            "raise regularization or kernel_degree, or lower content_weight",
        )
    # LAPACK writes columns; P is symmetric, and its rows are what the scores add up.
    inverse = torch.cholesky_inverse(factor).mT.contiguous()
    inverse.div_(inverse.diagonal().neg())
    inverse.diagonal().zero_()
    return inverse


def _refuse_too_many(n_items: int, device: torch.device) -> None:
    needed = MATRICES * 4 * n_items**2
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory
    else:
        memory = usable_memory()
    if needed > memory:
        raise JobError(
            "ease",
            f"{n_items:,} items need {needed / 2**30:.3g} GiB, and there are {memory / 2**30:.3g}",
            "take graphfilter or another backbone that keeps no matrix of items by items",
        )
