"""Everything that is wrong with a data set, at once."""

import unicodedata
from pathlib import Path

import numpy as np

from sgfd.dataset.catalog import Feature, is_modality_name
from sgfd.dataset.errors import DatasetError
from sgfd.dataset.load import find_dataset, is_sample, read_folder
from sgfd.dataset.problems import Problem, Problems, places
from sgfd.dataset.vocabulary import Vocabulary


def check_dataset(reference: str | Path, data_root: Path | None = None) -> list[Problem]:
    """Read a data set as `load_dataset` does, but go on after each error; scan all features.

    Raises:
        DatasetError: there is no such data set.
    """
    if is_sample(reference, data_root):
        return []
    folder = find_dataset(reference, data_root)
    problems = Problems(strict=False)
    dataset = problems.attempt(read_folder, folder, problems)
    if dataset is not None and dataset.catalog is not None:
        for feature in dataset.catalog.features.values():
            _check_feature(feature, problems)
    if dataset is not None:
        if (known := dataset.catalog or dataset.interactions) is not None:
            _check_forms("item", known.items, folder, problems)
        if dataset.interactions is not None:
            _check_forms("user", dataset.interactions.users, folder, problems)
    return problems.found


def _check_forms(what: str, ids: Vocabulary, folder: Path, problems: Problems) -> None:
    """Ids that look the same: one has a letter with its accent, another the two side by side."""
    first: dict[str, str] = {}
    for each in (each for each in ids.ids if not each.isascii()):
        twin = first.setdefault(unicodedata.normalize("NFC", each), each)
        if twin != each:
            problems.warning(
                folder,
                f"two {what}s are called {each!r}, in different Unicode forms ({twin!a} and "
                f"{each!a})",
                "they count as two; normalise the ids if they are one",
            )
            return


def _check_feature(feature: Feature, problems: Problems) -> None:
    broken: dict[str, list[int]] = {}
    try:
        try:
            for what, remedy in feature.oddities():
                problems.warning(feature.source, what, remedy)
        except DatasetError:  # of the first broken row; there may be more
            broken = feature.broken_rows()
    except DatasetError as error:
        problems.error(error.where, error.what, error.remedy)
        return
    if not is_modality_name(feature.name):
        problems.warning(
            feature.source,
            f"no feature set can call a modality {feature.name!r}",
            "rename it: letters, digits and _",
        )
    remedies = {
        "NaN in part": "make the row all NaN (the item lacks it) or all numbers",
        "infinite": "give finite numbers",
    }
    for what, rows in broken.items():
        if rows:
            named = places(np.array(rows, dtype=np.int64), 0)
            verb = "are" if len(rows) > 1 else "is"
            problems.error(feature.source, f"{named} {verb} {what}", remedies[what])
