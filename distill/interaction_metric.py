"""The closed form: the linear map whose inner products follow co-interaction.

With the rows u_i of `fused.py` as U (n, D), over the items that have interactions, and C (n, n)
their cosine co-interaction in training:

    c_ij = sum_u w_u a_ui a_uj / (|a_i| |a_j|) for i != j, 0 on the diagonal,
    w_u = 1 / degree of user u,   |a_i|^2 = sum_u w_u a_ui,

ridge regression of C on both sides, B = R U' C U R with R = (U'U + lambda I)^-1, is the bilinear
form that predicts c_ij from content, and

    M = strength B + content I,   z_i = (V sqrt(E))' u_i

with the d largest eigenvalues E of M and their eigenvectors V. Inner products of z follow
co-interaction where content tells it, and content elsewhere. U'CU needs one pass over the users'
sums s_u = sum_i a_ui u_i / |a_i|, never C itself:

    U'CU = sum_u w_u s_u s_u' - U'U.

All of it takes D x D numbers and D^3 steps; where the items are far fewer than the columns, it is
solved in the space of their rows (`row_space.py`): beside it, M is content I.
"""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from torch import Tensor

from sgfd.distill.errors import DistillError
from sgfd.distill.fused import FusedRows, made_by_fused_student, nested_widths
from sgfd.distill.held_out import HeldOutTrial, guides
from sgfd.distill.maker import Made, Task
from sgfd.distill.pairs import TrainingPairs
from sgfd.distill.quality import measure
from sgfd.distill.row_space import RowSpace
from sgfd.distill.settings import InteractionMetricSettings, SGFDPlusSettings
from sgfd.jobs import progress

logger = logging.getLogger("sgfd")

IN_CACHE = 2_048  # columns of which a total (D, D) is about what a CPU's cache holds
USERS_A_PRODUCT = 1_024  # at least, where it does not

Matrix = NDArray[np.float64]


def interaction_metric(task: Task, settings: InteractionMetricSettings) -> Made:
    """The closed form as a method of its own: nothing is drawn at random, nothing trained."""
    features, columns = task.catalog.features, task.standardisation
    assert task.pairs is not None
    rows = FusedRows(features, columns, task.device)
    if not guides(rows, task.pairs):
        raise DistillError(
            "the training interactions",
            "hold no user with 2 items that have features: there is nothing to follow",
            "add interactions, or choose a --method that needs none",
        )
    figures: dict[str, Any] = {}
    if task.measured:
        say_if_clipped(rows, settings.dimension)
        trial = HeldOutTrial.of(rows, task.pairs, settings.held_out_share, task.seed)
        if trial is not None:
            trial.judge("closed_form", metric_weight(rows, trial.left, settings))
            figures = trial.figures("closed_form")
    weight = metric_weight(rows, task.pairs, settings)
    nested = nested_widths(len(weight))
    made = made_by_fused_student(rows, columns, weight, nested)
    return replace(made, quality=measure(task, made) | figures)


def say_if_clipped(rows: FusedRows, dimension: int) -> None:
    """There are as many directions as columns, and no more."""
    if dimension > rows.width:
        logger.warning(
            "the modalities have %d columns together, so the dimension is %d, not %d",
            rows.width,
            rows.width,
            dimension,
        )


def metric_weight(
    rows: FusedRows,
    pairs: TrainingPairs,
    settings: InteractionMetricSettings,
) -> Tensor:
    """(V sqrt(E))' of the pairs' items, float32 (d, D); fewer rows where D < d.

    Takes a few D x D doubles and one block of rows, however many items and users there are.
    """
    space = RowSpace.of(rows, pairs.items, settings.dimension)
    return space.in_columns(_metric(space, pairs, settings)[0])


def unit_scale_weight(rows: FusedRows, pairs: TrainingPairs, settings: SGFDPlusSettings) -> Tensor:
    """The same, scaled so that |z_i|^2 is 1 in the mean over the pairs' items: where a training
    starts, whose step size is of that scale."""
    space = RowSpace.of(rows, pairs.items, settings.dimension)
    weight, gram = _metric(space, pairs, settings)
    total = np.vdot(weight.numpy() @ gram, weight.numpy())  # sum_i |z_i|^2 = tr(W U'U W')
    # All alike where the map is orthogonal to all that tells the items apart: 0, but for rounding.
    zero = np.finfo(np.float32).eps * np.trace(gram) * np.square(weight.numpy()).sum()
    longer = float(np.sqrt(len(pairs.items) / total)) if total > zero else 1.0
    return space.in_columns(weight) * longer


def _metric(
    rows: RowSpace,
    pairs: TrainingPairs,
    settings: InteractionMetricSettings | SGFDPlusSettings,
) -> tuple[Tensor, Matrix]:
    """The map (d, D) and U'U over the pairs' items."""
    gram = _gram(rows, pairs.items)
    shared = _user_sums_gram(rows, pairs) - gram  # U'CU
    identity = np.eye(len(gram))
    inverse = scipy.linalg.cho_factor(gram + settings.ridge * identity)
    form = scipy.linalg.cho_solve(inverse, scipy.linalg.cho_solve(inverse, shared).T)
    metric = settings.strength * (form + form.T) / 2 + settings.content * identity
    return _largest_directions(metric, settings.dimension), gram


def content_weight(rows: FusedRows, items: NDArray[np.int64], dimension: int) -> Tensor:
    """The same without interactions: the d principal directions of U'U, which keep the inner
    products u_i . u_j best (Eckart and Young, 1936), float32 (d, D)."""
    space = RowSpace.of(rows, items, dimension)
    directions = _largest_directions(_gram(space, items), dimension)
    return space.in_columns(torch.nn.functional.normalize(directions, dim=1))


def _gram(rows: RowSpace, items: NDArray[np.int64]) -> Matrix:
    """U'U over some items, in blocks."""
    gram = torch.zeros(rows.width, rows.width, dtype=torch.float64, device=rows.device)
    with progress(len(items), "content of the items") as advance:
        for start in range(0, len(items), rows.block_rows):
            block = rows.read(items[start : start + rows.block_rows])
            gram += block.T @ block
            advance(len(block))
    return gram.cpu().numpy()


def _user_sums_gram(rows: RowSpace, pairs: TrainingPairs) -> Matrix:
    """sum_u w_u s_u s_u', in blocks of users."""
    user_weight = 1 / np.maximum(pairs.user_degrees, 1)
    norms = np.sqrt(pairs.matrix.T @ user_weight)
    total = torch.zeros(rows.width, rows.width, dtype=torch.float64, device=rows.device)
    # To add to a total beyond the cache costs as much as the product of some hundred users.
    least = USERS_A_PRODUCT if rows.width > IN_CACHE else 1
    start, waiting = 0, []
    with progress(len(pairs), "content of the users") as advance:
        for items, block in pairs.blocks(rows.block_rows):
            stop = start + block.shape[0]
            scaled = diags_array(np.sqrt(user_weight[start:stop])) @ block
            scaled = csr_array(scaled @ diags_array(1 / norms[items]), dtype=np.float32)
            waiting.append(torch.from_numpy(scaled @ rows.read(items).cpu().numpy()))
            if sum(map(len, waiting)) >= least or stop == pairs.matrix.shape[0]:
                sums = (waiting[0] if len(waiting) == 1 else torch.cat(waiting)).to(rows.device)
                total += sums.T @ sums
                waiting = []
            start = stop
            advance(block.nnz)
    return total.cpu().numpy()


def _largest_directions(matrix: Matrix, dimension: int) -> Tensor:
    """(V sqrt(E))' of the d largest eigenvalues, descending; float32 (d, D).

    Each eigenvector has its largest entry positive, so that the result is one.
    """
    size = len(matrix)
    kept = min(dimension, size)
    values, vectors = scipy.linalg.eigh(matrix, subset_by_index=[size - kept, size - 1])
    values, vectors = values[::-1], vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    vectors = vectors * np.sign(vectors[largest, np.arange(kept)])
    weight = (vectors * np.sqrt(np.maximum(values, 0))).T
    return torch.from_numpy(np.ascontiguousarray(weight, dtype=np.float32))
