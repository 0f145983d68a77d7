"""Dividing interactions: by user, by item or in time, without loops over users or items."""

import numpy as np
from numpy.typing import NDArray

from sgfd.dataset.distinct import distinct
from sgfd.dataset.interactions import Indices, Pairs

Parts = tuple[Pairs, Pairs, Pairs]  # train, valid, test


def join(*parts: Pairs | None) -> Pairs:
    """Several parts as one, in their order; with timestamps where all interactions have them."""
    there = [part for part in parts if part is not None and len(part)]
    if not there:
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64))
    times = [part.timestamp for part in there if part.timestamp is not None]
    return Pairs(
        np.concatenate([part.user for part in there]),
        np.concatenate([part.item for part in there]),
        np.concatenate(times) if len(times) == len(there) else None,
    )


def cold_items_split(
    pairs: Pairs, test_share: float = 0.2, valid_share: float = 0.1, seed: int = 0
) -> Parts:
    """Hold out whole items, drawn at random from those that have interactions.

    Of n such items floor(test_share * n + 0.5) give all their interactions to test; of the
    remaining ones a share, rounded alike, to valid. So no item is in two parts.
    """
    items = np.random.default_rng(seed).permutation(distinct(pairs.item))
    n_test = _rounded(test_share * len(items))
    n_valid = _rounded(valid_share * (len(items) - n_test))
    test = np.isin(pairs.item, items[:n_test])
    valid = np.isin(pairs.item, items[n_test : n_test + n_valid])
    return pairs.take(~test & ~valid), pairs.take(valid), pairs.take(test)


def temporal_split(pairs: Pairs, test_share: float = 0.2, valid_share: float = 0.1) -> Parts:
    """Cut at two points in time, the same for all users: the last interactions are test.

    Those at the very time of a cut are all after it, so that the parts may be a little larger
    than their shares, and every training interaction is earlier than every one held out. Users
    and items may appear after a cut only.

    Raises:
        ValueError: the interactions have no timestamps.
    """
    if pairs.timestamp is None:
        raise ValueError("the interactions have no timestamps")
    test = _last(pairs.timestamp, test_share)
    held_out = _last(pairs.timestamp, test_share + valid_share)
    return pairs.take(~held_out), pairs.take(held_out & ~test), pairs.take(test)


def leave_one_out_split(pairs: Pairs, n_users: int, seed: int = 0) -> Parts:
    """Take each user's last interaction as test, the one before as valid.

    The last by time, equal times in random order; all at random without timestamps. Users with
    fewer than 3 interactions train only.
    """
    random = np.random.default_rng(seed).random(len(pairs))
    when = np.zeros(len(pairs), np.int64) if pairs.timestamp is None else pairs.timestamp
    place = np.empty(len(pairs), dtype=np.int64)
    place[np.lexsort((random, when))] = np.arange(len(pairs))
    from_last = rank_in_user(pairs.user, -place, n_users)
    enough = np.bincount(pairs.user, minlength=n_users)[pairs.user] >= 3
    test, valid = enough & (from_last == 0), enough & (from_last == 1)
    return pairs.take(~test & ~valid), pairs.take(valid), pairs.take(test)


def random_split(
    pairs: Pairs, n_users: int, test_share: float = 0.2, valid_share: float = 0.1, seed: int = 0
) -> Parts:
    """Take a share of each user's interactions as test, one of the rest as valid, at random.

    Both as `honest_split` does: users with fewer than 3 interactions train only.
    """
    rest, test = honest_split(pairs, n_users, test_share, seed=(seed, 1))
    return *honest_split(rest, n_users, valid_share, seed=seed), test


def honest_split(
    train: Pairs,
    n_users: int,
    share: float = 0.1,
    minimum: int = 3,
    seed: int | tuple[int, ...] = 0,
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


def _last(when: Indices, share: float) -> NDArray[np.bool_]:
    """The last share of n times: floor(share * n + 0.5) of them, and those equal to the first."""
    count = _rounded(share * len(when))
    if not count:
        return np.zeros(len(when), dtype=bool)
    late: NDArray[np.bool_] = when >= np.partition(when, len(when) - count)[len(when) - count]
    return late


def _rounded(number: float) -> int:
    return int(number + 0.5)
