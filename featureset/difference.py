"""What changed between two feature sets: items that came, went and moved, and whether a
recommender that was trained on the one can be served with the other."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgfd.featureset.compression import BLOCK_ROWS, BLOCK_VALUES, Rows
from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.reading import FeatureSet

SAME_ROW = 1e-4  # difference, in units of a modality's root mean square entry, that is rounding


@dataclass(frozen=True)
class ModalityDifference:
    """One modality of the old set, over the items that both sets have a row for.

    Attributes:
        name: of the modality.
        widths: of the old and the new one; None where the new set lacks it.
        compared: items with a row in both.
        unchanged: those of them whose numbers are the same, but for rounding.
        moved: id and cosine of the old and the new row of the others, the least alike first; empty
            where the widths differ.
        mean_cosine: over all that were compared; None where there are none.
        gained, lost: items of both sets that have a row in the new or the old one alone.
    """

    name: str
    widths: tuple[int, int | None]
    compared: int
    unchanged: int
    moved: list[tuple[str, float]]
    mean_cosine: float | None
    gained: int
    lost: int

    @property
    def is_same(self) -> bool:
        """Whether each item of both sets is where it was."""
        stays = self.widths[0] == self.widths[1] and self.unchanged == self.compared
        return stays and not self.gained and not self.lost


@dataclass(frozen=True)
class Difference:
    """From an old set to a new one.

    Attributes:
        came, went: ids of the items that only the new or only the old set has, in its order.
        stayed: number of the items of both.
        modalities: those of the old set.
        more_modalities: names of those that only the new one has.
        serves: whether a run that was trained on the old set can be served with the new one, as
            `pipeline recommend --new-items` does; with `why`, in words.
    """

    came: list[str]
    went: list[str]
    stayed: int
    modalities: list[ModalityDifference]
    more_modalities: list[str]
    serves: bool
    why: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def diff(old: FeatureSet, new: FeatureSet) -> Difference:
    """Compare two sets, item by item, in blocks.

    A run can be served with another set where a row there means what it meant in training: where
    both come of one student, or the items of both have the same rows in every modality that a
    training uses by default.

    Raises:
        FeatureSetError: a set can't be read, or has rows that are not finite.
    """
    import pandas as pd

    places = pd.Index(new.item_ids).get_indexer(pd.Index(old.item_ids)).astype(np.int64)
    stayed = np.flatnonzero(places >= 0)
    came = np.ones(new.n_items, dtype=bool)
    came[places[stayed]] = False
    modalities = [_compare(old, new, name, stayed, places[stayed]) for name in old.modalities]
    serves, why = _serves(old, new, modalities, len(stayed))
    return Difference(
        came=new.item_ids[came].tolist(),
        went=old.item_ids[places < 0].tolist(),
        stayed=len(stayed),
        modalities=modalities,
        more_modalities=[name for name in new.modalities if name not in old.modalities],
        serves=serves,
        why=why,
    )


def _compare(
    old: FeatureSet,
    new: FeatureSet,
    name: str,
    old_places: NDArray[np.int64],
    new_places: NDArray[np.int64],
) -> ModalityDifference:
    before, after = old.modalities[name], new.modalities.get(name)
    if after is None or after.shape[1] != before.shape[1]:
        width = None if after is None else after.shape[1]
        return ModalityDifference(name, (before.shape[1], width), 0, 0, [], None, 0, 0)
    rounding = SAME_ROW * _root_mean_square(before)
    compared = gained = lost = 0
    sum_of_cosines = 0.0
    moved: list[tuple[str, float]] = []
    step = _step(before)
    for start in range(0, len(old_places), step):
        places = old_places[start : start + step]
        rows, others = before[places], after[new_places[start : start + step]]
        had, has = ~np.isnan(rows[:, 0]), ~np.isnan(others[:, 0])
        gained += int((has & ~had).sum())
        lost += int((had & ~has).sum())
        both = had & has
        first, second = rows[both].astype(np.float64), others[both].astype(np.float64)
        _refuse_not_finite(old, name, first)
        _refuse_not_finite(new, name, second)
        off = np.abs(second - first).max(axis=1, initial=0) > rounding
        cosines = np.where(off, _cosines(first, second), 1)
        compared += len(cosines)
        sum_of_cosines += float(cosines.sum())
        ids = old.item_ids[places[both][off]]
        moved += zip(ids.tolist(), cosines[off].tolist(), strict=True)
    return ModalityDifference(
        name=name,
        widths=(before.shape[1], after.shape[1]),
        compared=compared,
        unchanged=compared - len(moved),
        moved=sorted(moved, key=lambda item: item[1]),
        mean_cosine=sum_of_cosines / compared if compared else None,
        gained=gained,
        lost=lost,
    )


def _serves(
    old: FeatureSet, new: FeatureSet, modalities: list[ModalityDifference], stayed: int
) -> tuple[bool, str]:
    usual = old.manifest.usual_modalities
    student = old.manifest.student_sha256
    one_student = student is not None and student == new.manifest.student_sha256
    other = ""
    for each in modalities:
        if each.name not in usual:
            continue
        before, after = each.widths
        if after is None:
            return False, f"{each.name} is not there any more"
        if before != after:
            return False, f"{each.name} has {after} columns, not {before}"
        if each.moved:
            said = f"{len(each.moved)} of {each.compared} items have other {each.name} rows"
            other = other or said
        elif not each.is_same:
            other = other or (
                f"{each.gained + each.lost} items have gained or lost their {each.name}"
            )
    if other and one_student:
        return True, f"one student made the rows of both, and a run keeps its own: {other} now"
    if other:
        lost = "what was learnt of the old ones does not hold for the new ones"
        return False, f"{other}: {lost}"
    if stayed:
        return True, f"the {stayed} items of both have the same {' and '.join(usual)} rows"
    if one_student:
        return True, "no item is in both, and one student made the rows of both"
    return False, "no item is in both, and nothing else shows that their rows mean the same"


def _root_mean_square(rows: Rows) -> float:
    """Of the entries of the rows that are there."""
    total = count = 0.0
    step = _step(rows)
    for start in range(0, len(rows), step):
        block = np.asarray(rows[start : start + step], dtype=np.float64)
        total += float(np.nansum(block * block))
        count += int((~np.isnan(block)).sum())
    return (total / count) ** 0.5 if count else 0.0


def _refuse_not_finite(opened: FeatureSet, name: str, rows: NDArray[np.float64]) -> None:
    """Raises FeatureSetError: a row that is there is not finite."""
    if not np.isfinite(rows).all():
        file = next(each.file for each in opened.manifest.modalities if each.name == name)
        raise FeatureSetError(
            opened.path / file, "has rows that are not finite", "get the set again"
        )


def _step(rows: Rows) -> int:
    """Rows of one block."""
    return max(1, min(BLOCK_ROWS, BLOCK_VALUES // int(rows.shape[1])))


def _cosines(rows: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each pair of rows; 0 where one of them has no direction."""
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(others, axis=1)
    cosines: NDArray[np.float64] = np.einsum("ij,ij->i", rows, others) / np.where(norms, norms, 1)
    return cosines
