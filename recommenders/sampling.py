"""The batches of one epoch: shuffled training interactions, negatives where asked."""

from collections.abc import Iterator

import numpy as np
import torch

from sgfd.recommenders.backbone import Batch
from sgfd.recommenders.inputs import Inputs


class EpochBatches:
    """All batches of one epoch, fixed by (seed, epoch), so that training resumes at any of them.

    The `negatives` of each interaction are uniform over the items that the user has no training
    interaction with; those of the whole epoch are drawn at once.
    """

    def __init__(
        self, inputs: Inputs, batch_size: int, negatives: int, seed: int, epoch: int
    ) -> None:
        generator = np.random.default_rng([seed, epoch])
        order = generator.permutation(len(inputs.users))
        chosen = torch.from_numpy(order).to(inputs.device)
        self._users = inputs.users.index_select(0, chosen)
        self._items = inputs.items.index_select(0, chosen)
        users = self._users.cpu().numpy()
        drawn = inputs.seen.sample_outside(users, negatives, generator, places=order)
        self._negatives = torch.from_numpy(drawn).to(inputs.device)
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._users) // self._batch_size)

    def start_at(self, first: int) -> Iterator[Batch]:
        """The batches from number `first` on."""
        for step in range(first, len(self)):
            part = slice(step * self._batch_size, (step + 1) * self._batch_size)
            yield Batch(self._users[part], self._items[part], self._negatives[part])
