"""What a backbone is given: training interactions and frozen features, as tensors."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from sgfd.featureset import FeatureSet
from sgfd.recommenders.item_sets import Indices, ItemSets


@dataclass(frozen=True)
class ModalityFeatures:
    """One modality's frozen features, aligned to the dataset's items.

    Attributes:
        values: float32 (I, d); zero where the item lacks the modality.
        present: bool (I,).
    """

    values: Tensor
    present: Tensor

    @property
    def dimension(self) -> int:
        return self.values.shape[1]


@dataclass(frozen=True)
class Inputs:
    """Training interactions and features of U users and I items, on one device.

    Attributes:
        users, items: int64 (n,), the training interactions.
        features: by modality; empty for a backbone that trains without.
        seen: the same interactions as sets, on the host.
    """

    n_users: int
    n_items: int
    users: Tensor
    items: Tensor
    seen: ItemSets
    features: dict[str, ModalityFeatures] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return self.users.device


def make_inputs(
    seen: ItemSets, features: dict[str, ModalityFeatures], device: torch.device
) -> Inputs:
    """Inputs whose training interactions are the pairs of `seen`, in ascending order."""
    users = np.repeat(np.arange(seen.n_users), seen.sizes)
    return Inputs(
        n_users=seen.n_users,
        n_items=seen.n_items,
        users=torch.from_numpy(users).to(device),
        items=torch.from_numpy(seen.items).to(device),
        seen=seen,
        features={
            name: ModalityFeatures(modality.values.to(device), modality.present.to(device))
            for name, modality in features.items()
        },
    )


def aligned_features(features: FeatureSet, rows: Indices) -> dict[str, ModalityFeatures]:
    """The features of a set in the order of a dataset's items.

    A backbone reads every row in every epoch, so the distilled rows (small by design) are
    held in memory; generic features never get here.

    Args:
        features: an opened feature set.
        rows: int64 (I,), the set's row of each item, -1 where it has none.
    """
    known = rows >= 0
    aligned = {}
    for name, stored in features.modalities.items():
        values = np.zeros((len(rows), stored.shape[1]), dtype=np.float32)
        values[known] = stored[rows[known]]
        present = known & ~np.isnan(values[:, 0])
        values[~present] = 0
        aligned[name] = ModalityFeatures(torch.from_numpy(values), torch.from_numpy(present))
    return aligned
