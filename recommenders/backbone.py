"""What a backbone is: the protocol that the training loop and the evaluation rely on."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor, nn

from sgfd.jobs import JobError
from sgfd.recommenders.evaluation import Similarity
from sgfd.recommenders.inputs import Inputs
from sgfd.settings import CHECKED, Count, NotNegative, Positive, Range, ranges_of

LearningRate = Annotated[Positive, Range(1e-4, 1e-2, log=True)]


class UnusableSettingsError(JobError):
    """The settings are at fault, not the inputs: with others the same backbone can be built and
    trained, so that a search goes on to its next trial."""


@checked_dataclass(frozen=True, config=CHECKED)
class BackboneSettings:
    """Settings that every trained backbone has; a backbone's own class adds to them."""

    learning_rate: LearningRate = 1e-3
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
    """Training interactions of one step.

    Attributes:
        users, items: int64 (B,).
        negatives: int64 (B, W), items that the user has no training interaction with; W is
            what the backbone asks for.
    """

    users: Tensor
    items: Tensor
    negatives: Tensor

    @property
    def candidates(self) -> Tensor:
        """The items, then their first negatives, then the second ...: int64 ((1 + W) B,)."""
        return torch.cat([self.items, self.negatives.T.flatten()])


class Backbone(nn.Module, ABC):
    """A recommender: built from the inputs and its settings, trained on `loss`, ranked exactly.

    Its score is the `similarity` of the vectors that `embeddings` gives, and FAISS ranks them; a
    backbone whose score is something else overrides `rescore`. All that it computes must follow
    from inputs, settings and seed, so that a run can be repeated and rebuilt from its folder.
    """

    Settings: ClassVar[type[BackboneSettings]] = BackboneSettings
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {}
    """The authors' published settings by data set: values of some fields of `Settings`."""
    similarity: ClassVar[Similarity] = "inner_product"
    uses_features: ClassVar[bool] = True
    """Whether features, where given, take part in the model."""
    needs_features: ClassVar[bool] = False
    """Whether there is no such model without features."""
    scores_new_items: ClassVar[bool] = False
    """Whether an item without interactions is scored by its features."""
    shortlist: ClassVar[int | None] = None
    """Where rescoring all items each epoch would cost more than the training: so many, nearest
    by `embeddings`, are rescored to choose the model. Final figures rescore all items."""
    trained: ClassVar[bool] = True
    """Whether there is anything to train; otherwise `loss` is never called."""
    negatives: int = 0
    """Negative items W drawn for each training interaction; may be set in `__init__`."""

    @abstractmethod
    def __init__(self, inputs: Inputs, settings: Any) -> None:
        super().__init__()

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The named parts of the loss of a batch, scalars; training minimises their sum."""

    @abstractmethod
    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Vectors of all users (U, d) and all items (I, d), whose `similarity` is the score.

        Where `rescore` is overridden they find candidates and neighbours, and score nothing.
        """

    def rescore(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores of users (B,) with items: (B, C) for items (B, C), or (B, I) of all items for
        items (I,). Override it only where the score is no `similarity` of vectors."""
        raise NotImplementedError

    @classmethod
    def rescores(cls) -> bool:
        """Whether the score is what `rescore` says."""
        return cls.rescore is not Backbone.rescore

    @classmethod
    def ranges(cls) -> dict[str, Range]:
        """What `pipeline tune` searches, by setting; none of the training's where none is."""
        ranges = ranges_of(cls.Settings)
        if not cls.trained:
            ranges.pop("learning_rate", None)
        return ranges

    def begin_epoch(self, generator: torch.Generator) -> None:
        """Called before each epoch; all its randomness must come from `generator` (CPU)."""

    def after_step(self) -> None:
        """Called after each step of the optimiser, without gradient."""
