"""Losses that several backbones share."""

from torch import Tensor
from torch.nn import functional


def ranking_loss(liked: Tensor, others: Tensor) -> Tensor:
    """-ln sigmoid(s_ui - s_uj), the mean over pairs and negatives.

    BPR-Opt of Rendle et al. (UAI 2009).

    Args:
        liked: scores (B,) or (B, 1) of the training interactions. others: (B, W).
    """
    return -functional.logsigmoid(liked.reshape(-1, 1) - others).mean()


def squared_norm(*tables: Tensor) -> Tensor:
    """Half the sum of squares of the batch's rows, per interaction: 1/(2B) sum ||x||^2.

    The penalty of LightGCN's and NGCF's code, on rows (B, d) or (B, W, d) each.
    """
    rows = len(tables[0])
    total = tables[0].square().sum()
    for table in tables[1:]:
        total = total + table.square().sum()
    return total / (2 * rows)


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
