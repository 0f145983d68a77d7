"""Teacher, student, classifier and fusion of SGFD (section 3.2 of the paper)."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from sgfd.distill.settings import SGFDSettings

NEGATIVE_SLOPE = 0.01


class Teacher(nn.Module):
    """T_m: a deep network from generic width D to d, ending on the unit sphere.

    The width is divided by 4 a layer until the next would be at or below d, then one layer leads
    to d: 4096 -> 1024 -> 256 -> 128.
    """

    def __init__(self, source: int, dimension: int, activation: str = "leaky_relu") -> None:
        super().__init__()
        widths = teacher_widths(source, dimension)
        self.layers = nn.ModuleList(
            nn.Linear(inside, outside) for inside, outside in pairwise(widths)
        )
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        """x (b, D) to t (b, d), unit rows."""
        for layer in self.layers[:-1]:
            x = layer(x)
            if self.activation == "leaky_relu":
                x = functional.leaky_relu(x, NEGATIVE_SLOPE)
        return _unit(self.layers[-1](x))


class Student(nn.Module):
    """S_m: one linear layer from D to d, ending on the unit sphere. This is what is exported.

    Other makers leave out LeakyReLU (slope 1) or the unit norm.
    """

    def __init__(
        self,
        source: int,
        dimension: int,
        negative_slope: float = NEGATIVE_SLOPE,
        normalised: bool = True,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(source, dimension)
        self.negative_slope = negative_slope
        self.normalised = normalised

    def forward(self, x: Tensor) -> Tensor:
        """x (b, D) to s (b, d), unit rows where `normalised`."""
        x = functional.leaky_relu(self.linear(x), self.negative_slope)
        return functional.normalize(x, dim=1) if self.normalised else x


class Classifier(nn.Module):
    """C_m: the cosines of a unit vector with one direction a label, times a learnt scale.

    A plain linear layer on unit vectors keeps the logits near 0, and training stalls where
    there are few labels.
    """

    def __init__(self, dimension: int, n_labels: int, scale: float) -> None:
        super().__init__()
        self.directions = nn.Parameter(torch.empty(n_labels, dimension))
        self.log_scale = nn.Parameter(torch.tensor(scale).log())
        nn.init.normal_(self.directions)

    def forward(self, unit: Tensor) -> Tensor:
        """unit (b, d) to logits (b, C)."""
        return self.log_scale.exp() * functional.linear(
            unit, functional.normalize(self.directions, dim=1)
        )


class Fusion(nn.Module):
    """The teacher's vectors of all modalities side by side, to d, LeakyReLU, to the labels.

    It carries the modalities' complementary information into the teachers. Zeros stand in
    for a modality that an item lacks.
    """

    def __init__(self, n_modalities: int, dimension: int, n_labels: int, scale: float) -> None:
        super().__init__()
        self.join = nn.Linear(n_modalities * dimension, dimension)
        self.classifier = Classifier(dimension, n_labels, scale)

    def forward(self, side_by_side: Tensor) -> Tensor:
        """(b, M d) to logits (b, C)."""
        logits: Tensor = self.classifier(_unit(self.join(side_by_side)))
        return logits


class ModalityNetworks(nn.Module):
    """What belongs to one modality: teacher, student, and the classifier that both share."""

    def __init__(self, source: int, n_labels: int, settings: SGFDSettings) -> None:
        super().__init__()
        d = settings.dimension
        self.teacher = Teacher(source, d, settings.teacher_activation)
        self.student = Student(source, d)
        self.classifier = Classifier(d, n_labels, settings.logit_scale)


def teacher_widths(source: int, dimension: int) -> list[int]:
    """All widths of a teacher, from D to d."""
    widths = [source]
    while widths[-1] // 4 > dimension:
        widths.append(widths[-1] // 4)
    return [*widths, dimension]


def _unit(x: Tensor) -> Tensor:
    return functional.normalize(functional.leaky_relu(x, NEGATIVE_SLOPE), dim=1)
