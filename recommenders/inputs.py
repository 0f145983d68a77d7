"""What a backbone is given: training interactions and frozen features, as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgfd.featureset import FeatureSet, FeatureSetError, Rows
from sgfd.recommenders.item_sets import Indices, ItemSets

BLOCK_ROWS = 8192

FeatureScale = Literal["entry", "unit", "stored"]


@dataclass(frozen=True)
class ModalityFeatures:
    """One modality's frozen features, aligned to the dataset's items.

    Attributes:
        values: float32 (I, d); zero where the item lacks the modality.
        present: bool (I,).
        factor: what the stored rows were multiplied by.
    """

    values: Tensor
    present: Tensor
    factor: float = 1.0

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

    def has_features(self) -> Tensor:
        """Which items have at least one modality, bool (I,)."""
        has = torch.zeros(self.n_items, dtype=torch.bool, device=self.device)
        for modality in self.features.values():
            has |= modality.present
        return has

    def side_by_side(self) -> Tensor:
        """All modalities' features next to each other, (I, sum of widths); 0 where lacking."""
        return torch.cat(
            [self.users.new_empty(self.n_items, 0).float()]
            + [modality.values for modality in self.features.values()],
            dim=1,
        )


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
            name: replace(
                modality, values=modality.values.to(device), present=modality.present.to(device)
            )
            for name, modality in features.items()
        },
    )


def aligned_features(
    features: FeatureSet,
    rows: Indices,
    scale: FeatureScale = "entry",
    modalities: Sequence[str] | None = None,
    factors: dict[str, float] | None = None,
    dimension: int | None = None,
) -> dict[str, ModalityFeatures]:
    """The features of a set in the order of a dataset's items, on one stated scale.

    Unit vectors, standardised columns and raw activations differ in size by orders of magnitude,
    and a backbone's weights and penalties feel it. So that no comparison is decided by that, every
    modality is multiplied by one number that makes its mean squared entry 1.

    A backbone reads every row in every epoch, so they are held in memory, 4 bytes a number:
    little where they are distilled; `raw` and `standard` are as wide as the generic features.

    Args:
        features: an opened feature set.
        rows: int64 (I,), the set's row of each item, -1 where it has none.
        scale: `entry` (as above), `unit` (every row to norm 1), `stored` (as they are).
        modalities: those to use; where None those that the set recommends, else all.
        factors: of `entry`, where other items have fixed them already.
        dimension: use so many leading columns alone, of a set that is made for it (nested
            dimensions); to unit norm where the whole rows have it.

    Raises:
        FeatureSetError: the set has no such modality, a row is not finite, or its leading columns
            do not stand alone.
    """
    known = rows >= 0
    aligned = {}
    normalised = {modality.name: modality.normalised for modality in features.manifest.modalities}
    for name in features.chosen_modalities(modalities):
        if dimension is not None:
            features.check_width(name, dimension)
        values = _stored_rows(features.modalities[name], rows, dimension)
        present = known & ~np.isnan(values[:, 0])
        values[~present] = 0
        if not (finite := np.isfinite(values).all(axis=1)).all():
            raise FeatureSetError(
                features.path,
                f"{name}: row {rows[finite.argmin()]} is not finite",
                "have the set made again; `pipeline features verify` tells more",
            )
        if dimension is not None and normalised[name]:
            _to_unit_norm(values)
        factor = 1.0
        if scale == "entry":
            factor = factors[name] if factors else _entry_factor(values, present)
            values *= factor
        elif scale == "unit":
            _to_unit_norm(values)
        aligned[name] = ModalityFeatures(
            torch.from_numpy(values), torch.from_numpy(present), factor
        )
    return aligned


def _stored_rows(stored: Rows, rows: Indices, width: int | None) -> NDArray[np.float32]:
    """Leading columns (all where None) of some rows, read and decoded block by block, float32
    (I, width); 0 where the row is -1."""
    width = width or stored.shape[1]
    values = np.zeros((len(rows), width), dtype=np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        part = slice(start, start + BLOCK_ROWS)
        known = rows[part] >= 0
        values[part][known] = stored[rows[part][known]][:, :width]
    return values


def _to_unit_norm(values: NDArray[np.float32]) -> None:
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _entry_factor(values: NDArray[np.float32], present: NDArray[np.bool_]) -> float:
    """What makes the mean squared entry of the rows that are there 1."""
    total = np.einsum("id,id->", values, values, dtype=np.float64)
    return float(np.sqrt(present.sum() * values.shape[1] / total)) if total > 0 else 1.0
