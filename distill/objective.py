"""What guides a student beyond the paper's losses: co-interaction, structure, meaning.

Each is a module with a weight of its own in the objective; the student's vectors may be judged at
several widths (nested dimensions), each by its leading columns alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from sgfd.distill.losses import semantic_loss
from sgfd.distill.networks import Classifier


class Interaction(nn.Module):
    """From some of a user's training items to the others: a contrastive loss over items.

    p_u = unit(sum over the user's history h of z_h); with the targets t of the user and all
    candidate items c outside the history,

        L = - mean_u mean_t log exp(p_u . z_t / T) / sum_c exp(p_u . z_c / T).

    InfoNCE (van den Oord et al., 2018) with the user's profile as the query: what a new item is
    recommended by, the nearness to the mean of what its users had, is what is trained.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, widths: Sequence[Tensor], history: Tensor, targets: Tensor) -> Tensor:
        """Unit rows z (c, d) of the candidates, at each width d; (b, c) of 0 and 1; the mean over
        the widths, a scalar.

        Every user has a history and a target.
        """
        excluded, no_target, n_targets = history > 0, targets == 0, targets.sum(dim=1)
        losses = []
        for z in widths:
            profile = functional.normalize(history @ z, dim=1)
            scores = (profile @ z.T).div_(self.temperature).masked_fill_(excluded, -torch.inf)
            probabilities = torch.log_softmax(scores, dim=1).masked_fill(no_target, 0)
            losses.append((-probabilities.sum(dim=1) / n_targets).mean())
        return torch.stack(losses).mean()


class Structure(nn.Module):
    """Relational distillation: cosines among the items of a batch follow those of the content.

    L = mean_ij (z_i . z_j - u_i . u_j)^2 (Park et al., CVPR 2019, on cosines in place of
    distances).
    """

    def forward(self, z: Tensor, rows: Tensor) -> Tensor:
        """Unit rows z (b, d) and u (b, D); a scalar."""
        return functional.mse_loss(z @ z.T, rows @ rows.T)


class Semantic(nn.Module):
    """SGFD's semantic guidance: the label's cross-entropy by a cosine classifier."""

    def __init__(self, dimension: int, n_labels: int, logit_scale: float) -> None:
        super().__init__()
        self.classifier = Classifier(dimension, n_labels, logit_scale)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        """Unit rows z (b, d) and labels (b,), -1 where there is none; a scalar."""
        return semantic_loss(self.classifier(z), labels)
