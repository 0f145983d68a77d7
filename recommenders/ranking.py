"""From a backbone, or the vectors that it left, to ranked lists."""

from collections.abc import Callable
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from sgfd.recommenders.backbone import Backbone
from sgfd.recommenders.evaluation import (
    Rank,
    Scores,
    Similarity,
    first_unseen,
    top_k,
    top_k_by_score,
)
from sgfd.recommenders.item_sets import Indices, ItemSets


def vectors_of(model: Backbone) -> tuple[Scores, Scores]:
    """User and item vectors of a backbone as float32 arrays on the host."""
    model.eval()
    with torch.inference_mode():
        users, items = model.embeddings()
    return users.detach().float().cpu().numpy(), items.detach().float().cpu().numpy()


def _device_of(model: Backbone) -> torch.device:
    """Where its tensors are; the CPU where it has none."""
    for tensor in chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")


def rank_by_model(model: Backbone) -> Rank:
    """Lists by a backbone's own score, as it stands now."""
    if not model.rescores():
        return rank_by_vectors(*vectors_of(model), model.similarity)
    model.eval()
    device = _device_of(model)

    def rank(
        users: Indices, k: int, seen: ItemSets, candidates: Indices | None = None
    ) -> tuple[Indices, Scores]:
        items = np.arange(seen.n_items) if candidates is None else candidates
        answering = torch.from_numpy(items).to(device)

        def score(rows: Indices) -> Tensor:
            with torch.inference_mode():
                return model.rescore(torch.from_numpy(users[rows]).to(device), answering)

        return _among(candidates, seen, lambda unseen: top_k_by_score(score, len(items), k, unseen))

    return rank


def rank_by_shortlist(model: Backbone, size: int) -> Rank:
    """Lists by a backbone's own score among the `size` best items by its vectors."""
    nearest = rank_by_vectors(*vectors_of(model), model.similarity)
    device = _device_of(model)

    def rank(
        users: Indices, k: int, seen: ItemSets, candidates: Indices | None = None
    ) -> tuple[Indices, Scores]:
        lists, _ = nearest(users, max(k, size), seen, candidates)
        asking, short = (torch.from_numpy(part).to(device) for part in (users, lists))
        with torch.inference_mode():
            scores = model.rescore(asking, short.clamp(min=0)).masked_fill(short < 0, -torch.inf)
        order = torch.argsort(scores, dim=1, descending=True, stable=True)[:, :k]
        best, of_best = short.gather(1, order), scores.gather(1, order)
        return best.cpu().numpy(), of_best.float().cpu().numpy()

    return rank


def remembered(rank: Rank, seen: ItemSets, most: int, further: int) -> Rank:
    """The same lists, where they are up to `most` long and of all items, but each user is ranked
    once: what he may not be recommended beyond `seen`, up to `further` items, is struck from longer
    lists. They are kept, so that all are ranked anew where `further` is larger than `most`."""
    if further > most:
        return rank
    kept: tuple[Indices, Scores] | None = None

    def read_off(
        users: Indices, k: int, unwanted: ItemSets, candidates: Indices | None = None
    ) -> tuple[Indices, Scores]:
        nonlocal kept
        if candidates is not None or k > most:
            return rank(users, k, unwanted, candidates)
        if kept is None:
            kept = rank(np.arange(seen.n_users), most + further, seen)
        return first_unseen(kept[0][users], kept[1][users], k, unwanted)

    return read_off


def rank_by_vectors(users: Scores, items: Scores, similarity: Similarity) -> Rank:
    """Lists by the similarity of stored vectors, users (U, d) and items (I, d)."""

    def rank(
        rows: Indices, k: int, seen: ItemSets, candidates: Indices | None = None
    ) -> tuple[Indices, Scores]:
        asking = np.asarray(users[rows])
        answering = items if candidates is None else np.asarray(items[candidates])
        return _among(
            candidates, seen, lambda unseen: top_k(asking, answering, k, unseen, similarity)
        )

    return rank


def _among(
    candidates: Indices | None,
    seen: ItemSets,
    search: Callable[[ItemSets], tuple[Indices, Scores]],
) -> tuple[Indices, Scores]:
    """Search with the candidates' own numbers, and give the lists in those of all items."""
    if candidates is None:
        return search(seen)
    lists, scores = search(seen.restrict(candidates))
    return np.where(lists >= 0, np.append(candidates, -1)[lists], -1), scores
