"""Batches of items for training, read from the memory maps as they are needed."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgfd.dataset import Feature, ItemCatalog
from sgfd.distill.streaming import Standardisation


@dataclass(frozen=True)
class ItemBatch:
    """b items: standardised rows (b, D) by modality, which of them are there, labels (b,)."""

    rows: dict[str, Tensor]
    present: dict[str, Tensor]
    labels: Tensor


class ItemReader:
    """Reads batches; in a catalogue without labels every label is -1."""

    def __init__(
        self,
        catalog: ItemCatalog,
        standardisation: dict[str, Standardisation],
        device: torch.device,
    ) -> None:
        labels = catalog.labels
        self.features: dict[str, Feature] = catalog.features
        self._labels = torch.from_numpy(np.full(catalog.n_items, -1) if labels is None else labels)
        self._device = device
        self._standardisation = {
            name: (torch.from_numpy(s.mean).to(device), torch.from_numpy(s.scale).to(device))
            for name, s in standardisation.items()
        }

    def read(self, index: NDArray[np.int64]) -> ItemBatch:
        """The items of `index` (b,); rows of a lacking modality are 0 and not `present`."""
        rows, present = {}, {}
        for name, feature in self.features.items():
            mean, scale = self._standardisation[name]
            generic = torch.from_numpy(feature.rows(index)).to(self._device)
            present[name] = ~generic[:, 0].isnan()
            rows[name] = torch.nan_to_num((generic - mean) / scale)
        return ItemBatch(rows, present, self._labels[index].to(self._device))
