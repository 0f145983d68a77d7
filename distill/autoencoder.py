"""The autoencoder: codes from which a network can rebuild the generic features, without labels."""

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from sgfd.distill.batches import ItemBatch, ItemReader
from sgfd.distill.maker import Made, Task, made_by_students
from sgfd.distill.networks import NEGATIVE_SLOPE, Student
from sgfd.distill.quality import measure
from sgfd.distill.settings import AutoencoderSettings
from sgfd.distill.training import ItemNetworks, fit_items, held_out_errors


def autoencoder(task: Task, settings: AutoencoderSettings) -> Made:
    """Train an autoencoder for every modality and make the encoders' codes.

    Hinton, Salakhutdinov: Reducing the Dimensionality of Data with Neural Networks, Science 2006.
    The modalities share no weight, but are trained in one loop and stopped together.

    `reconstruction_error` is the mean squared error on the held-out items, 1 being that of the
    mean of every (varying) column.
    """
    catalog = task.catalog
    reader = ItemReader(catalog, task.standardisation, task.device)
    widths = {name: feature.dimension for name, feature in catalog.features.items()}
    model = Autoencoder(widths, settings).to(task.device)
    train, held_out = task.hold_out(settings.held_out_share)
    fit_items(model, reader, train, held_out, task.seed, task.work)
    made = made_by_students(
        catalog.features, model.encoder_by_modality(), task.standardisation, task.device
    )
    sums = held_out_errors(model, reader, held_out).tolist() if len(held_out) else []
    sums = sums or [(0.0, 0.0)] * len(model.names)
    figures = {
        name: {"reconstruction_error": error / count if count else None}
        for name, (error, count) in zip(model.names, sums, strict=True)
    }
    return replace(made, quality=measure(task, made, held_out, figures))


class Autoencoder(ItemNetworks):
    """By modality, an encoder of the form of SGFD's student and a decoder with one hidden layer.

    c = leaky_relu(W x + b), to unit norm where so set; x' = V leaky_relu(U c + a) + e; x are the
    standardised features.
    """

    settings: AutoencoderSettings

    def __init__(self, widths: dict[str, int], settings: AutoencoderSettings) -> None:
        super().__init__()
        self.settings = settings
        self.names = tuple(widths)
        d, hidden = settings.dimension, settings.decoder_width
        self.encoders = nn.ModuleList(
            Student(width, d, normalised=settings.normalise) for width in widths.values()
        )
        self.decoders = nn.ModuleList(
            nn.Sequential(nn.Linear(d, hidden), nn.LeakyReLU(NEGATIVE_SLOPE), nn.Linear(hidden, w))
            for w in widths.values()
        )

    def encoder_by_modality(self) -> dict[str, Student]:
        return dict(zip(self.names, cast(list[Student], self.encoders), strict=True))

    def loss(self, batch: ItemBatch) -> dict[str, Tensor]:
        """By modality, 1/(b D) sum_i ||x'_i - x_i||^2 over the b items that have it."""
        sums = self._errors(batch)
        return {name: error / max(count, 1) for name, (error, count) in sums.items()}

    def held_out_errors(self, batch: ItemBatch) -> Tensor:
        """By modality, the sum over items of 1/D ||x'_i - x_i||^2 and their number, (M, 2)."""
        sums = self._errors(batch).values()
        return torch.stack(
            [torch.stack([error, error.new_full((), n)]) for error, n in sums]
        ).double()

    def _errors(self, batch: ItemBatch) -> dict[str, tuple[Tensor, int]]:
        errors = {}
        for name, encoder, decoder in zip(self.names, self.encoders, self.decoders, strict=True):
            rows = batch.rows[name][batch.present[name]]
            difference = decoder(encoder(rows)) - rows
            errors[name] = (difference.square().mean(dim=1).sum(), len(rows))
        return errors
