"""Losses that several backbones share.

Those of nearly every backbone are one node of autograd each, with the backward pass written out:
as chains of small operations they took a fifth of a small data set's epoch.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def ranking_loss(users: Tensor, items: Tensor) -> Tensor:
    """-ln sigmoid(x_u . (x_i - x_j)), the mean over interactions (u, i) with one negative j each.

    BPR-Opt of Rendle et al. (UAI 2009).

    Args:
        users: vectors (B, d). items: vectors (2 B, d), of the interactions' items above those of
            their negatives, as `Batch.candidates` has them.
    """
    loss: Tensor = _Ranking.apply(users, items)  # type: ignore[no-untyped-call]
    return loss


def bpr_opt(users: Tensor, items: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    """BPR-Opt of a batch: its ranking loss, and the penalty of the very rows that it ranks.

    mean of -ln sigmoid(x_u . (x_i - x_j) + b_i - b_j), and weight / (2B) sum ||x||^2.

    Args:
        users: vectors (B, d). items: rows (2 B, d) or (2 B, d + 1), the last column then the
            items' biases; in the order of `ranking_loss`.
    """
    losses: tuple[Tensor, Tensor] = _BPROpt.apply(users, items, weight)  # type: ignore[no-untyped-call]
    return losses


def squared_norm(*tables: Tensor) -> Tensor:
    """Half the sum of squares of the batch's rows, per interaction: 1/(2B) sum ||x||^2.

    The penalty of LightGCN's and DGCF's code.

    Args:
        tables: rows (B, d) of the users first, then any others.
    """
    loss: Tensor = _SquaredNorm.apply(*tables)  # type: ignore[no-untyped-call]
    return loss


def own_among_others(one: Tensor, other: Tensor) -> Tensor:
    """-ln of the softmax over j of x_i . y_j at j = i, the mean over the rows i: InfoNCE.

    Oord, Li, Vinyals, arXiv 1807.03748, eq. 4.

    Args:
        one, other: x and y (B, d). A temperature is what one of them is divided by.
    """
    loss: Tensor = _OwnAmongOthers.apply(one, other)  # type: ignore[no-untyped-call]
    return loss


def warp_hinge(liked: Tensor, others: Tensor, margin: float, n_items: int) -> Tensor:
    """Weighted hinge on squared distances: the nearest negative counts, by approximate rank.

    mean of log(1 + rank) * max(0, margin + d_ui - min_j d_uj), rank = n_items times the share of
    the negatives within the margin (CML, Hsieh et al. 2017, eq. 1 to 4; WARP, Weston et al. 2010).

    Args:
        liked: squared distances (B,) of the training interactions. others: (B, W).
    """
    violating = (margin + liked[:, None] - others.detach() > 0).float().mean(dim=1)
    weight = (1 + violating * n_items).log().detach()
    return (weight * functional.relu(margin + liked - others.min(dim=1).values)).mean()


def covariance_penalty(points: Tensor) -> Tensor:
    """(||C||_F^2 - ||diag C||^2) / n of the covariance C of points (n, d): CML's eq. 7."""
    centred = points - points.mean(dim=0)
    covariance = centred.T @ centred / len(points)
    off_diagonal = covariance.square().sum() - covariance.diagonal().square().sum()
    return off_diagonal / len(points)


class _Ranking(torch.autograd.Function):
    """d/dx_u = w (x_i - x_j), d/dx_i = w x_u = -d/dx_j, w = -sigmoid(-margin) / B."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor) -> Tensor:
        liked, others = items.chunk(2)
        apart = liked - others
        margin = torch.linalg.vecdot(users, apart)
        ctx.save_for_backward(users, apart, margin)
        return functional.logsigmoid(margin).mean().neg_()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        users, apart, margin = ctx.saved_tensors
        weight = torch.sigmoid(-margin).mul_(gradients[0] / -len(margin)).unsqueeze(1)
        of_liked = users * weight
        return apart * weight, torch.cat([of_liked, -of_liked])


class _BPROpt(torch.autograd.Function):
    """As `_Ranking`, and weight / B times each row. A user's entry that meets a bias is 1."""

    @staticmethod
    def forward(ctx: Any, users: Tensor, items: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        n, missing = len(users), items.shape[1] - users.shape[1]
        meeting = functional.pad(users, (0, missing), value=1.0) if missing else users
        apart = items[:n] - items[n:]
        margin = torch.linalg.vecdot(meeting, apart)
        ctx.save_for_backward(users, items, meeting, apart, margin)
        ctx.decay = weight / n
        squares = torch.dot(users.view(-1), users.view(-1))
        squares += torch.dot(items.view(-1), items.view(-1))
        return functional.logsigmoid(margin).mean().neg_(), squares.mul_(ctx.decay / 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        users, items, meeting, apart, margin = ctx.saved_tensors
        slope = torch.sigmoid(-margin).mul_(gradients[0] / -len(margin)).unsqueeze(1)
        decay = gradients[1] * ctx.decay
        of_users = (users * decay).addcmul_(apart[:, : users.shape[1]], slope)
        of_items = items * decay
        of_items[: len(margin)].addcmul_(meeting, slope)
        of_items[len(margin) :].addcmul_(meeting, slope, value=-1)
        return of_users, of_items, None


class _OwnAmongOthers(torch.autograd.Function):
    """d/dx_i = sum_j p_ij y_j - y_i, d/dy_j = sum_i p_ij x_i - x_j, each divided by B.

    p (B, B) is kept as its rows' powers and their sums: nothing more of that size is computed.
    """

    @staticmethod
    def forward(ctx: Any, one: Tensor, other: Tensor) -> Tensor:
        logits = one @ other.T
        highest = logits.amax(dim=1, keepdim=True)
        powers = logits.sub_(highest).exp_()
        total = powers.sum(dim=1, keepdim=True)
        ctx.save_for_backward(one, other, powers, total)
        loss: Tensor = (highest + total.log()).mean() - torch.linalg.vecdot(one, other).mean()
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        one, other, powers, total = ctx.saved_tensors
        scale = gradients[0] / len(one)
        of_one = (powers @ other).div_(total).sub_(other).mul_(scale)
        of_other = (powers.T @ (one / total)).sub_(one).mul_(scale)
        return of_one, of_other


class _SquaredNorm(torch.autograd.Function):
    """d/dx = x / B."""

    @staticmethod
    def forward(ctx: Any, *tables: Tensor) -> Tensor:
        ctx.save_for_backward(*tables)
        squares = [torch.dot(rows, rows) for rows in (table.flatten() for table in tables)]
        return torch.stack(squares).sum().div_(2 * len(tables[0]))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        scale = gradients[0] / len(ctx.saved_tensors[0])
        return tuple(table * scale for table in ctx.saved_tensors)
