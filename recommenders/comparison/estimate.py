"""How long the cells of a grid take: as long as those that are done, else by a few timed steps."""

import time
from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np
import torch

from sgfd.recommenders.backbone import Backbone, BackboneSettings
from sgfd.recommenders.backbones import find_backbone
from sgfd.recommenders.comparison.results import Cell, CellResult
from sgfd.recommenders.inputs import Inputs
from sgfd.recommenders.sampling import EpochBatches

STEPS = 3  # timed, of a backbone that has no result yet
EPOCHS_PER_PATIENCE = 5  # a training that stops after `patience` idle epochs has about so many more
AROUND = 4.0  # seconds that a cell takes beside training and judging: start, reading
JUDGED = 5e-8  # seconds that judging takes a pair of user and item, of vectors


class Estimate:
    """Expected seconds of cells; rough before a backbone's first result, and better with each.

    Args:
        inputs: training interactions, without features.
        settings: of each backbone, by name.
    """

    def __init__(self, inputs: Inputs, settings: dict[str, BackboneSettings]) -> None:
        self._inputs, self._settings = inputs, settings
        self._guesses: dict[str, float] = {}

    def __call__(self, cells: Sequence[Cell], results: Sequence[CellResult]) -> float:
        """Seconds of all `cells` one after the other, given what is done."""
        done: dict[str, list[float]] = {}
        for result in results:
            if result.error is None:
                seconds = result.train_seconds + result.refit_seconds + result.judge_seconds
                done.setdefault(result.cell.backbone, []).append(seconds)
        return sum(
            AROUND
            + (
                float(np.mean(done[cell.backbone]))
                if cell.backbone in done
                else self._guess(cell.backbone)
            )
            for cell in cells
        )

    def _guess(self, backbone: str) -> float:
        if backbone not in self._guesses:
            kind = find_backbone(backbone)
            trains = kind.trained and not kind.needs_features
            settings = self._settings[backbone]
            judging = JUDGED * self._inputs.n_users * self._inputs.n_items
            self._guesses[backbone] = judging + (
                guessed_seconds(kind, self._inputs, settings) if trains else 0.0
            )
        return self._guesses[backbone]


def guessed_seconds(kind: type[Backbone], inputs: Inputs, settings: BackboneSettings) -> float:
    """Seconds of a training, from a few steps without features and a usual number of epochs."""
    with torch.random.fork_rng(devices=[]):
        model = kind(inputs, settings).train()
        start = time.perf_counter()
        model.begin_epoch(torch.Generator().manual_seed(0))
        batches = EpochBatches(inputs, settings.batch_size, model.negatives, 0, 0)
        preparing = time.perf_counter() - start
        start = time.perf_counter()
        for batch in islice(cycle(batches.start_at(0)), STEPS):
            torch.stack(list(model.loss(batch).values())).sum().backward()  # type: ignore[no-untyped-call]
        step = (time.perf_counter() - start) / STEPS
    epochs = min(settings.epochs, EPOCHS_PER_PATIENCE * settings.patience)
    return epochs * (preparing + len(batches) * step)
