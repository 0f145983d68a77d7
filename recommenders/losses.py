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
