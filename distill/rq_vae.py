"""RQ-VAE: items as a few codes, as semantic ids are made, and what is rebuilt from these codes.

Rajput et al.: Recommender Systems with Generative Retrieval (TIGER), NeurIPS 2023, section 3.1;
Lee et al.: Autoregressive Image Generation using Residual Quantization, CVPR 2022; van den Oord et
al.: Neural Discrete Representation Learning, NeurIPS 2017. It reads the fused rows of `fused.py`
and knows nothing of labels or interactions.
"""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sgfd.dataset import distinct
from sgfd.distill.fused import FusedRows, made_by_network
from sgfd.distill.maker import Made, Task
from sgfd.distill.quality import measure
from sgfd.distill.settings import RQVAESettings
from sgfd.distill.training import Items, Trainable, fit

KMEANS_ROWS_PER_CODE = 64
HIDDEN_WIDTHS = (512, 256, 128)  # of the encoder; the decoder has them the other way round

Indices = NDArray[np.int64]


def rq_vae(task: Task, settings: RQVAESettings) -> Made:
    """Train encoder, codes and decoder; make what the decoder rebuilds from each item's codes."""
    rows = FusedRows(task.catalog.features, task.standardisation, task.device)
    torch.manual_seed(task.seed)
    model = RQVAE(rows.width, settings).to(task.device)
    train, held_out = task.hold_out(settings.held_out_share)
    examples = Items(rows, train, settings.batch_size, task.seed)
    some = np.random.default_rng(task.seed).permutation(train)
    model.start_codebooks(
        rows.read_all(np.sort(some[: KMEANS_ROWS_PER_CODE * settings.codes])), task.seed
    )

    def error() -> float:
        return _reconstruction_error(model, rows, held_out)

    fit(model, examples, error if len(held_out) else None, task.work, patience=settings.patience)
    model.eval()
    rebuild, width = model.rebuild, rows.width
    if settings.feature == "code":
        rebuild, width = model.quantised, settings.latent_width
    made = made_by_network(task.catalog.features, rows, rebuild, width)
    if not task.measured:
        return made
    everything = distinct(np.concatenate([train, held_out]))
    figures = {
        "reconstruction_error": error() if len(held_out) else None,
        **_code_figures(model, rows, everything),
    }
    return replace(made, quality=measure(task, made) | figures)


class RQVAE(Trainable):
    """z = E(u); r_0 = z; c_l = argmin_k |r_l - e_lk|, r_(l+1) = r_l - e_(l c_l); u' = D(sum_l e).

        L = |u - u'|^2 + sum_l |sg(r_l) - e_(l c_l)|^2 + beta |r_l - sg(e_(l c_l))|^2,

    sg stops the gradient, and the decoder's reaches E as if nothing had been quantised
    (straight through).
    """

    settings: RQVAESettings

    def __init__(self, width: int, settings: RQVAESettings) -> None:
        super().__init__()
        self.settings = settings
        widths = (width, *HIDDEN_WIDTHS, settings.latent_width)
        self.encoder, self.decoder = _network(widths), _network(widths[::-1])
        shape = (settings.levels, settings.codes, settings.latent_width)
        self.codebooks = nn.Parameter(torch.zeros(shape))

    @torch.no_grad()
    def start_codebooks(self, rows: Tensor, seed: int) -> None:
        """Each level's codes at the k-means of what the levels before it leave of rows (k, D)."""
        import faiss

        residual = self.encoder(rows)
        for codebook in self.codebooks:
            points = np.ascontiguousarray(residual.cpu().numpy())
            count = min(len(codebook), len(points))
            clusters = faiss.Kmeans(points.shape[1], count, seed=seed, min_points_per_centroid=1)
            clusters.train(points)
            assert clusters.centroids is not None
            centres = np.resize(clusters.centroids, codebook.shape)  # fewer rows than codes: again
            codebook.copy_(torch.from_numpy(centres))
            residual = residual - codebook[_nearest(residual, codebook)]

    def loss(self, batch: Tensor) -> dict[str, Tensor]:
        """The parts of L on rows u (b, D), means over the rows."""
        z = self.encoder(batch)
        residual, total, quantising = z, torch.zeros_like(z), z.new_zeros(())
        for codebook in self.codebooks:
            # Not codebook[...], whose gradient several threads add in any order.
            chosen = codebook.index_select(0, _nearest(residual, codebook))
            to_code = (residual.detach() - chosen).square().sum(dim=1).mean()
            to_residual = (residual - chosen.detach()).square().sum(dim=1).mean()
            quantising = quantising + to_code + self.settings.commitment * to_residual
            total, residual = total + chosen, residual - chosen.detach()
        rebuilt = self.decoder(z + (total - z).detach())
        return {
            "reconstruction": (rebuilt - batch).square().sum(dim=1).mean(),
            "quantisation": quantising,
        }

    def codes(self, rows: Tensor) -> Tensor:
        """The semantic ids of rows (b, D), int64 (b, levels)."""
        residual, found = self.encoder(rows), []
        for codebook in self.codebooks:
            found.append(_nearest(residual, codebook))
            residual = residual - codebook[found[-1]]
        return torch.stack(found, dim=1)

    def quantised(self, rows: Tensor) -> Tensor:
        """The sum of an item's codes, (b, latent width)."""
        chosen = self.codes(rows)
        return torch.stack([book[c] for book, c in zip(self.codebooks, chosen.T, strict=True)]).sum(
            dim=0
        )

    def rebuild(self, rows: Tensor) -> Tensor:
        """u' (b, D) of rows u (b, D)."""
        rebuilt: Tensor = self.decoder(self.quantised(rows))
        return rebuilt


def _network(widths: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inside, outside in pairwise(widths):
        layers += [nn.Linear(inside, outside), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _nearest(rows: Tensor, codebook: Tensor) -> Tensor:
    """The nearest code of each row (b, w), int64 (b,)."""
    return torch.cdist(rows.detach(), codebook.detach()).argmin(dim=1)


@torch.inference_mode()
def _reconstruction_error(model: RQVAE, rows: FusedRows, items: Indices) -> float:
    """Mean of |u - u'|^2 over items; u has norm 1."""
    total = 0.0
    for block in rows.blocks(items):
        total += float((model.rebuild(block) - block).square().sum())
    return total / len(items)


@torch.inference_mode()
def _code_figures(model: RQVAE, rows: FusedRows, items: Indices) -> dict[str, object]:
    """How many codes of each level are used, and the share of items whose id is theirs alone."""
    codes = torch.cat([model.codes(block) for block in rows.blocks(items)])
    _, counts = torch.unique(codes, dim=0, return_counts=True)
    return {
        "codes_used": [len(level.unique()) for level in codes.T],
        "unique_ids": float((counts == 1).sum() / max(len(codes), 1)),
    }
