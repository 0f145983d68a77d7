"""From a backbone, or the vectors that it left, to ranked lists."""

from itertools import chain

import numpy as np
import torch
from torch import Tensor

from sgfd.recommenders.backbone import Backbone
from sgfd.recommenders.evaluation import Rank, Scores, Similarity, top_k, top_k_by_score
from sgfd.recommenders.item_sets import Indices, ItemSets


def vectors_of(model: Backbone) -> tuple[Scores, Scores]:
    """User and item vectors of a backbone as float32 arrays on the host."""
    model.eval()
    with torch.inference_mode():
        users, items = model.embeddings()
    return users.float().cpu().numpy(), items.float().cpu().numpy()


def rank_by_model(model: Backbone) -> Rank:
    """Lists by a backbone's own score, as it stands now."""
    if not model.rescores():
        return rank_by_vectors(*vectors_of(model), model.similarity)
    model.eval()
    device = next(chain(model.parameters(), model.buffers())).device

    def rank(users: Indices, k: int, seen: ItemSets) -> tuple[Indices, Scores]:
        everything = torch.arange(seen.n_items, device=device)

        def score(rows: Indices) -> Tensor:
            with torch.inference_mode():
                return model.rescore(torch.from_numpy(users[rows]).to(device), everything)

        return top_k_by_score(score, seen.n_items, k, seen)

    return rank


def rank_by_vectors(users: Scores, items: Scores, similarity: Similarity) -> Rank:
    """Lists by the similarity of stored vectors, users (U, d) and items (I, d)."""

    def rank(rows: Indices, k: int, seen: ItemSets) -> tuple[Indices, Scores]:
        return top_k(np.asarray(users[rows]), items, k, seen, similarity)

    return rank
