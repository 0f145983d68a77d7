"""What a backbone is: the protocol that the training loop and the evaluation rely on."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn

from sgfd.recommenders.evaluation import Similarity
from sgfd.recommenders.inputs import Inputs

CHECKED = ConfigDict(extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


@checked_dataclass(frozen=True, config=CHECKED)
class BackboneSettings:
    """Settings that every trained backbone has; a backbone's own class adds to them."""

    learning_rate: Positive = 1e-3
    """Step size of Adam."""
    batch_size: Count = 2048
    """Training interactions a step."""
    epochs: Count = 1000
    """At most so many passes over the training interactions."""
    patience: Count = 20
    """Stop after so many epochs without a better Recall@20."""
    checkpoint_seconds: NotNegative = 15.0
    """Least time between two checkpoints, in seconds; it does not change the result."""


@dataclass(frozen=True)
class Batch:
    """Training interactions of one step: int64 (B,) each; negatives where the backbone asks."""

    users: Tensor
    items: Tensor
    negatives: Tensor | None = None


class Backbone(nn.Module, ABC):
    """A recommender that scores by a product or distance of user and item vectors.

    A backbone is built from the inputs and its settings, trains on `loss` and is ranked by FAISS
    on `embeddings`. Its parameters must not depend on anything but inputs, settings and seed.
    """

    Settings: ClassVar[type[BackboneSettings]] = BackboneSettings
    similarity: ClassVar[Similarity] = "inner_product"
    uses_features: ClassVar[bool] = True
    """Whether features, where given, take part in the model."""
    trained: ClassVar[bool] = True
    """Whether there is anything to train; otherwise `loss` is never called."""
    negatives: ClassVar[int] = 0
    """Negative items drawn for each training interaction (0 or 1)."""

    @abstractmethod
    def __init__(self, inputs: Inputs, settings: BackboneSettings) -> None:
        super().__init__()

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The named parts of the loss of a batch, scalars; training minimises their sum."""

    @abstractmethod
    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users (U, d) and all items (I, d), whose `similarity` is the score."""
