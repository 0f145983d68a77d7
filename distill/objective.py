"""What guides a student beyond the paper's losses: co-interaction, structure, meaning.

Each is a module with a weight of its own in the objective; the student's vectors may be judged at
several widths (nested dimensions), each by its leading columns alone.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sgfd.distill.losses import semantic_loss
from sgfd.distill.networks import Classifier

SHORTEST = 1e-12  # length that a sum of vectors is divided by at least


class Interaction(nn.Module):
    """From some of a user's training items to the others: a contrastive loss over items.

    p_u = unit(sum over the user's history h of z_h); with the targets t of the user and all
    candidate items c outside the history,

        L = - mean_u mean_t log exp(p_u . z_t / T) / sum_c exp(p_u . z_c / T).

    InfoNCE (van den Oord et al., 2018) with the user's profile as the query: what a new item is
    recommended by, the nearness to the mean of what its users had, is what is trained.

    Without popularity, log n_c is added to the scores of an item with n_c users (Menon et al.:
    Long-tail learning via logit adjustment, ICLR 2021), and a user's targets weigh n_t^-1/2: how
    often an item is taken is told by these, and z need not tell it.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(
        self,
        widths: Sequence[Tensor],
        history: Tensor,
        targets: Tensor,
        n_targets: Tensor,
        degrees: Tensor | None = None,
    ) -> Tensor:
        """The mean over the widths, a scalar.

        Args:
            widths: unit rows z (c, d) of the candidates, at each width d.
            history, targets: int64 (2, n), a user (0 to b - 1) above a candidate; every user has
                one of each.
            n_targets: (b,), how many a user has.
            degrees: (c,), users of each candidate, to leave popularity to them; None: as it is.
        """
        bias = weight = None
        if degrees is not None:
            bias = degrees.clamp_min(1).log()
            weight = torch.exp(-bias.index_select(0, targets[1]) / 2)
            sums = torch.zeros_like(n_targets).index_add_(0, targets[0], weight)
            weight = weight / sums.index_select(0, targets[0])
        given = history, targets, n_targets, self.temperature, bias, weight
        losses = [
            _ProfileToTargets.apply(z, *given)  # type: ignore[no-untyped-call]
            for z in widths
        ]
        return torch.stack(losses).mean()


class _ProfileToTargets(torch.autograd.Function):
    """The loss of one width, a node of its own: all that is as large as users by candidates is a
    product, its powers e^(p . z / T - highest), and their gradient.

    With g_uc = (softmax_uc - w_uc) / (b T), w the targets' weights, 1 / n_t where they are alike:

        d/dp_u = sum_c g_uc z_c,   d/dz_c = sum_u g_uc p_u + sum over u with c in h of d/ds_u,
        d/ds_u = (d/dp_u - p_u (p_u . d/dp_u)) / |s_u|,   s_u the sum over the history.
    """

    @staticmethod
    def forward(
        ctx: Any,
        z: Tensor,
        history: Tensor,
        targets: Tensor,
        n_targets: Tensor,
        temperature: float,
        bias: Tensor | None,
        weight: Tensor | None,
    ) -> Tensor:
        total = z.new_zeros(len(n_targets), z.shape[1])
        total.index_add_(0, history[0], z.index_select(0, history[1]))
        norm = torch.linalg.vector_norm(total, dim=1, keepdim=True).clamp_(min=SHORTEST)
        profile = total.div_(norm)
        scores = (profile / temperature) @ z.T
        if bias is not None:
            scores += bias
        of_targets = scores[tuple(targets)]
        scores[tuple(history)] = -torch.inf
        highest = scores.amax(dim=1, keepdim=True)
        powers = scores.sub_(highest).exp_()
        sums = powers.sum(dim=1)
        ctx.save_for_backward(z, history, targets, n_targets, norm, profile, powers, sums, weight)
        ctx.temperature = temperature
        found = torch.zeros_like(sums)
        if weight is None:
            found.index_add_(0, targets[0], of_targets).div_(n_targets)
        else:
            found.index_add_(0, targets[0], of_targets * weight)
        loss: Tensor = (sums.log() + highest.squeeze(1) - found).mean()
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, *tuple[None, ...]]:
        z, history, targets, n_targets, norm, profile, powers, sums, weight = ctx.saved_tensors
        scale = gradients[0] / (len(sums) * ctx.temperature)
        of_scores = powers * (scale / sums).unsqueeze(1)
        if weight is None:
            of_scores[tuple(targets)] -= (scale / n_targets)[targets[0]]
        else:
            of_scores[tuple(targets)] -= scale * weight
        of_profile = of_scores @ z
        of_z = of_scores.T @ profile
        along = torch.linalg.vecdot(profile, of_profile).unsqueeze(1)
        of_total = of_profile.sub_(profile * along).div_(norm)
        of_z.index_add_(0, history[1], of_total.index_select(0, history[0]))
        return of_z, None, None, None, None, None, None


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
