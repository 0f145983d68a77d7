"""Dividing interactions: by user, at random or in time, without loops over users."""

import numpy as np
from numpy.typing import NDArray

from sgfd.dataset.interactions import Indices, Pairs


def honest_split(
    train: Pairs, n_users: int, share: float = 0.1, minimum: int = 3, seed: int = 0
) -> tuple[Pairs, Pairs]:
    """Take a validation part out of the training interactions.

    Each user with at least `minimum` of them gives max(1, share of them, rounded half up),
    chosen at random.

    Returns:
        What is left to train on, and the validation part.
    """
    sizes = np.bincount(train.user, minlength=n_users)
    wanted = np.maximum(1, np.floor(share * sizes + 0.5).astype(np.int64))
    wanted[sizes < minimum] = 0
    random = np.random.default_rng(seed).random(len(train))
    held_out = rank_in_user(train.user, random, n_users) < wanted[train.user]
    return train.take(~held_out), train.take(held_out)


def hold_out_last(
    pairs: Pairs, n_users: int, share: float = 0.2, seed: int = 0
) -> tuple[Pairs, Pairs]:
    """Take each user's last interactions as a test part: by time, or at random without time.

    A user with n of them gives floor(share * n + 0.5), never all.
    """
    sizes = np.bincount(pairs.user, minlength=n_users)
    wanted = np.minimum(np.floor(share * sizes + 0.5).astype(np.int64), np.maximum(sizes - 1, 0))
    when = pairs.timestamp
    order = np.random.default_rng(seed).random(len(pairs)) if when is None else -when
    held_out = rank_in_user(pairs.user, order, n_users) < wanted[pairs.user]
    return pairs.take(~held_out), pairs.take(held_out)


def rank_in_user(user: Indices, value: NDArray[np.generic], n_users: int) -> Indices:
    """The place of each interaction among its user's, by ascending value, int64 (n,)."""
    order = np.lexsort((value, user))
    sizes = np.bincount(user, minlength=n_users)
    first = np.cumsum(sizes) - sizes
    rank = np.empty(len(user), dtype=np.int64)
    rank[order] = np.arange(len(user)) - first[user[order]]
    return rank
