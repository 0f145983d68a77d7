"""The losses of SGFD, one function a loss.

Liu, Chen, Cheng, Nie, Kankanhalli: Semantic-Guided Feature Distillation for Multimodal
Recommendation, ACM MM 2023 (arXiv 2308.03113). t_i and s_i are teacher's and student's unit
vectors of item i, z(t_i) and z(s_i) their logits over the C labels by the shared classifier.
"""

from typing import Literal

from torch import Tensor
from torch.nn import functional


def semantic_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Semantic guidance of the teacher: -1/n sum_i log softmax(z_i)[y_i], a scalar.

    On logits (b, C): the authors' code applies the cross-entropy to probabilities, where its
    gradient nearly vanishes. The n labelled items of labels (b,) count; an item with label -1
    takes no part, and without any labelled item the loss is 0.
    """
    labelled = labels >= 0
    total = functional.cross_entropy(logits[labelled], labels[labelled], reduction="sum")
    return total / labelled.sum().clamp(min=1)


def response_loss(
    teacher: Tensor, student: Tensor, temperature: float, kind: Literal["l1", "kl"]
) -> Tensor:
    """Response-based distillation: distance of p = softmax(z(t)/T) and q = softmax(z(s)/T).

    Of logits (b, C) each, b > 0. The teacher is the target and gets no gradient.

    `l1`: 1/(b C) sum_ic |p_ic - q_ic|, as in the authors' code.
    `kl`: T^2/b sum_ic p_ic (log p_ic - log q_ic): Hinton, Vinyals, Dean: Distilling the Knowledge
    in a Neural Network, 2015 (arXiv 1503.02531); T^2 keeps the gradient's size at any T.
    """
    target = (teacher.detach() / temperature).log_softmax(dim=1)
    softened = (student / temperature).log_softmax(dim=1)
    if kind == "l1":
        return (target.exp() - softened.exp()).abs().mean()
    divergence = functional.kl_div(softened, target, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def feature_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """Feature-based distillation: 1/(b d) sum_i ||s_i - t_i||^2 of unit vectors (b, d), b > 0.

    The teacher is the target and gets no gradient.
    """
    return functional.mse_loss(student, teacher.detach())
