"""Top-K with seen items left out, against plain FAISS search of the same shape.

    python benchmarks/topk_search.py

Plain search is `IndexFlatIP.search(users, k)` on the same index; both in turns, the
medians and their ratio.
"""

import time

import faiss
import numpy as np

from sgfd.jobs import use_threads
from sgfd.recommenders import ItemSets, top_k

SHAPES = (
    (4_874, 2_406, 37_027, 128),
    (50_000, 20_000, 500_000, 128),
    (20_000, 100_000, 400_000, 64),
)


def main() -> None:
    print(f"threads {use_threads(None)}, k 50, seconds")
    for n_users, n_items, n, d in SHAPES:
        rng = np.random.default_rng(0)
        users = rng.normal(size=(n_users, d)).astype(np.float32)
        items = rng.normal(size=(n_items, d)).astype(np.float32)
        # Seen counts are as uneven as real ones: most users have few, some very many.
        user = (n_users * rng.random(n) ** 1.5).astype(np.int64)
        seen = ItemSets.from_pairs(user, rng.integers(0, n_items, n), n_users, n_items)
        plain, ours = [], []
        for _ in range(15):
            faiss.cvar.distance_compute_min_k_reservoir = 100  # as FAISS comes
            start = time.perf_counter()
            index = faiss.IndexFlatIP(d)
            index.add(items)
            index.search(users, 50)
            between = time.perf_counter()
            faiss.cvar.distance_compute_min_k_reservoir = 20  # as top_k's module sets it
            top_k(users, items, 50, seen)
            plain.append(between - start)
            ours.append(time.perf_counter() - between)
        ratio = np.median(np.array(ours[1:]) / np.array(plain[1:]))
        print(
            f"{n_users} users x {n_items} items, {d}-d: plain {np.median(plain[1:]):.3f}, "
            f"without seen items {np.median(ours[1:]):.3f}, ratio {ratio:.2f}"
        )


if __name__ == "__main__":
    main()
