"""Recommending for people: lists for a user, items near an item, lists for everybody."""

import difflib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sgfd.featureset import partial_folder, remove_locked
from sgfd.jobs import JobError, room_in, whole_number
from sgfd.recommenders.evaluation import Scores
from sgfd.recommenders.item_sets import Indices, ItemSets
from sgfd.recommenders.ranking import rank_by_vectors
from sgfd.recommenders.run_folder import LIST_SCHEMA, Run, write_lists


def recommend(
    run: Run, user_id: str, k: int = 10, label: str | None = None, *, leave_out_test: bool = False
) -> list[dict[str, Any]]:
    """The k best items that a user has not in train or valid, best first.

    Args:
        label: of the items that may be listed; all where None.
        leave_out_test: list none of his test items either: for lists to put to use, where the
            others are those that test judges.

    Returns:
        One object an item: `rank`, `item_id`, `title` (None where it has none), `score`.

    Raises:
        JobError: the run knows no such user, no item has the label, or k is below 1.
    """
    k = _length(run, k)
    user = np.array([run.user_index(user_id)])
    seen = run.split.train.take(user).merge(run.split.valid.take(user))
    if leave_out_test:
        seen = seen.merge(run.split.test.take(user))
    return _rows(run, *run.rank(user, k, seen, labelled(run, label)))


def similar(run: Run, item_id: str, k: int = 10, label: str | None = None) -> list[dict[str, Any]]:
    """The k items nearest to an item, itself left out: by cosine, or by L2 where that is the score.

    Raises:
        JobError: the run knows no such item, no item has the label, k is below 1, or the
            backbone's vectors say nothing of what is near the item.
    """
    k = _length(run, k)
    item = np.array([run.item_index(item_id)])
    vectors = np.asarray(run.item_embeddings)
    if not np.any(vectors[item]) or np.all(vectors == vectors[:1]) or vectors.shape[1] == 1:
        raise JobError(
            f"item {item_id!r}",
            f"{run.record['backbone']} has no vector that says what is near it",
            "ask a run on features, or one that learns a vector an item",
        )
    if run.similarity == "inner_product":
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
    itself = ItemSets(np.array([0, 1]), item, len(vectors))
    rank = rank_by_vectors(vectors, vectors, run.similarity)
    return _rows(run, *rank(item, k, itself, labelled(run, label)))


def write_recommendations(
    run: Run,
    path: str | Path,
    k: int = 10,
    label: str | None = None,
    overwrite: bool = False,
    *,
    leave_out_test: bool = False,
) -> Path:
    """Lists of all users as a Parquet file (one row a user), in bounded memory.

    Args:
        leave_out_test: as of `recommend`.

    Raises:
        JobError: the file's name does not end in .parquet, it exists and is not to be overwritten
            or holds something else, its folder doesn't, no item has the label, or k is below 1.
        FeatureSetError: another process is writing it.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise JobError(path, "is written as Parquet", "end its name in .parquet")
    if path.exists() and not overwrite:
        raise JobError(path, "exists already", "choose another name or add --overwrite")
    if path.exists() and not (path.is_file() and _holds_lists(path)):
        raise JobError(path, "exists already, and holds no such lists", "choose another name")
    if not path.parent.is_dir():
        raise JobError(path.parent, "is no folder", "make it, or choose another place")
    k = _length(run, k)
    candidates = labelled(run, label)
    with room_in(path.parent), partial_folder(path) as partial:
        try:
            write_lists(run, partial / path.name, k, candidates, leave_out_test=leave_out_test)
            (partial / path.name).replace(path)
        finally:
            remove_locked(partial)
    return path


def _holds_lists(path: Path) -> bool:
    """Whether a file is one that `write_recommendations` made."""
    try:
        return bool(pq.read_schema(path).names == LIST_SCHEMA.names)
    except (pa.ArrowException, OSError):
        return False


def _length(run: Run, k: int) -> int:
    """How long a list of k can be."""
    return min(whole_number("k", k, least=1), len(run.names.items))


def labelled(run: Run, label: str | None) -> Indices | None:
    """The items that have a label, ascending; None (all) where none is asked for.

    Raises:
        JobError: no item has it; the nearest labels are in the message.
    """
    if label is None:
        return None
    items = np.flatnonzero(run.names.labels == label)
    if not len(items):
        known = sorted({name for name in run.names.labels if name is not None})
        near = difflib.get_close_matches(label, known, cutoff=0.3) or known[:5]
        choice = f"choose {' or '.join(map(repr, near))}" if near else "leave the label out"
        raise JobError(f"label {label!r}", f"no item of {run.folder} has it", choice)
    return items


def _rows(run: Run, lists: Indices, scores: Scores) -> list[dict[str, Any]]:
    return [
        {
            "rank": rank,
            "item_id": str(run.names.items[item]),
            "title": run.names.titles[item],
            "score": float(score),
        }
        for rank, (item, score) in enumerate(zip(lists[0], scores[0], strict=True), start=1)
        if item >= 0
    ]
