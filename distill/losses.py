"""The losses of SGFD: semantic, response-based, feature-based (section 3.3 of the paper)."""

from torch import Tensor
from torch.nn import functional


def semantic_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (b, C) with labels (b,), averaged over the labelled items.

    On logits: the authors' code applies it to probabilities, where its gradient nearly
    vanishes. Items with label -1 take no part; without any labelled item it is 0.
    """
    labelled = labels >= 0
    total = functional.cross_entropy(logits[labelled], labels[labelled], reduction="sum")
    return total / labelled.sum().clamp(min=1)


def response_loss(teacher: Tensor, student: Tensor, temperature: float, kind: str) -> Tensor:
    """Distance of softmax(teacher / T) and softmax(student / T), logits (b, C) each.

    `l1`: mean absolute difference over items and labels, as in the authors' code. `kl`:
    Kullback-Leibler divergence times T^2, averaged over items (Hinton et al. 2015). The
    teacher is the target and gets no gradient.
    """
    target = (teacher.detach() / temperature).log_softmax(dim=1)
    softened = (student / temperature).log_softmax(dim=1)
    if kind == "l1":
        return (target.exp() - softened.exp()).abs().mean()
    divergence = functional.kl_div(softened, target, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def feature_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean squared difference of unit vectors (b, d); the teacher gets no gradient."""
    return functional.mse_loss(student, teacher.detach())
