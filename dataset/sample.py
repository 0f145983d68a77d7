"""The embedded sample: a small, SYNTHETIC data set with planted structure.

It is made by a seeded generator, so that examples and tests need no download. Nothing in it is
measured from people. What is planted, for tests to find again:

- every item has one of 8 categories and a style (8 numbers); its image (64-d) and text (48-d)
  features are noisy linear views of both; some items lack one, some are unlabelled;
- every user likes two categories and a style, and picks items by how well they match, times
  a popularity that varies from item to item.

So the best a recommender can do is far above most popular, and features help.
"""

import numpy as np
from numpy.typing import NDArray

from sgfd.dataset.catalog import Feature, ItemCatalog
from sgfd.dataset.interactions import Interactions, Pairs
from sgfd.dataset.splits import hold_out_last
from sgfd.dataset.vocabulary import Vocabulary

N_USERS, N_ITEMS, STYLE = 600, 300, 8
CATEGORIES = ("Lamps", "Chairs", "Desks", "Shelves", "Clocks", "Rugs", "Mirrors", "Vases")
_NOUNS = ("lamp", "chair", "desk", "shelf", "clock", "rug", "mirror", "vase")
_COLOURS = ("Amber", "Black", "Blue", "Cream", "Green", "Grey", "Red", "White")
_MATERIALS = ("ash", "brass", "ceramic", "glass", "oak", "steel", "walnut", "wool")


def make_sample() -> tuple[ItemCatalog, Interactions]:
    """The sample's catalogue and interactions; the same on every call."""
    rng = np.random.default_rng(20231029)
    category = rng.integers(0, len(CATEGORIES), N_ITEMS)
    style = rng.normal(size=(N_ITEMS, STYLE))
    items = Vocabulary([f"i{number}" for number in range(1, N_ITEMS + 1)])
    catalog = ItemCatalog(
        items,
        _features(rng, category, style),
        np.where(rng.random(N_ITEMS) < 0.05, -1, category),
        CATEGORIES,
        _titles(category, style),
    )
    pairs = _interactions(rng, category, style)
    train, test = hold_out_last(pairs, N_USERS)
    users = Vocabulary([f"u{number}" for number in range(1, N_USERS + 1)])
    return catalog, Interactions(users, items, train, None, test)


def _features(
    rng: np.random.Generator, category: NDArray[np.int64], style: NDArray[np.float64]
) -> dict[str, Feature]:
    """image (300, 64) and text (300, 48), float32; one in 20 and one in 10 items lack them."""
    latent = np.concatenate([np.eye(len(CATEGORIES))[category] * 2, style], axis=1)
    features = {}
    for name, width, lacking in (("image", 64, 0.05), ("text", 48, 0.1)):
        view = rng.normal(size=(latent.shape[1], width))
        values = latent @ view + 2 * rng.normal(size=(N_ITEMS, width))
        values[rng.random(N_ITEMS) < lacking] = np.nan
        features[name] = Feature.from_array(name, values.astype(np.float32))
    return features


def _titles(category: NDArray[np.int64], style: NDArray[np.float64]) -> NDArray[np.object_]:
    """Titles that tell the category and two traits of the style: `Blue oak desk no. 17`."""
    octile = np.argsort(np.argsort(style, axis=0), axis=0) * 8 // N_ITEMS
    titles = [
        f"{_COLOURS[octile[i, 0]]} {_MATERIALS[octile[i, 1]]} {_NOUNS[category[i]]} no. {i + 1}"
        for i in range(N_ITEMS)
    ]
    return np.array(titles, dtype=object)


def _interactions(
    rng: np.random.Generator, category: NDArray[np.int64], style: NDArray[np.float64]
) -> Pairs:
    """About 20 items a user, drawn without repetition (Gumbel top-k) by taste and popularity."""
    liked = np.argsort(rng.random((N_USERS, len(CATEGORIES))), axis=1)[:, :2]
    likes = np.zeros((N_USERS, len(CATEGORIES)))
    np.put_along_axis(likes, liked, 1, axis=1)
    taste = rng.normal(size=(N_USERS, STYLE))
    popularity = rng.normal(size=N_ITEMS)
    logit = 2.5 * likes[:, category] + 0.5 * taste @ style.T + 0.5 * popularity
    ranked = np.argsort(-(logit + rng.gumbel(size=logit.shape)), axis=1)
    count = rng.integers(6, 31, N_USERS)
    user = np.repeat(np.arange(N_USERS), count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return Pairs(user, ranked[user, place].astype(np.int64))
