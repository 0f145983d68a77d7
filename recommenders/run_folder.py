"""A run on disk: everything that judging it again or recommending from it needs.

    run.json               settings, versions, seed, inputs, metrics, timings (written last)
    history.parquet        one row an epoch: losses and the Recall@20 that stops the training
    per_user.parquet       one row a user and part (valid, test, ...): every metric
    topk.parquet           one row a user: the 50 best items not in train or valid
    model.safetensors      the weights of the epoch that was chosen
    user_embeddings.npy    float32 (U, d)      item_embeddings.npy   float32 (I, d)
    interactions.parquet   user_index, item_index, part (train, valid, test)
    users.parquet          user_id, and judged where test judges some of them alone
    items.parquet          item_id, title, label
    features.safetensors   the aligned features, where there were any: NAME.values, NAME.present
    refit/                 where there was one, the run of the model trained on train and valid
                           together: the same files, valid being a part of train and empty

Unlike a feature set, a run holds user ids and interactions: it is not for sharing.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from sgfd.dataset import Dataset, Feature
from sgfd.featureset import write_file
from sgfd.jobs import JobError, progress
from sgfd.recommenders.backbone import Backbone, BackboneSettings
from sgfd.recommenders.backbones import find_backbone
from sgfd.recommenders.evaluation import CUTOFFS, Judgement, Rank, Scores, Similarity, judge
from sgfd.recommenders.inputs import ModalityFeatures, make_inputs
from sgfd.recommenders.item_sets import Indices, ItemSets
from sgfd.recommenders.protocols import JudgedPart, SplitSets
from sgfd.recommenders.ranking import rank_by_model, rank_by_vectors, remembered

RECORD = "run.json"
RUN_FORMAT = 1
NARROWED_FORMAT = 2  # judged among some items or users alone: readers of 1 would judge all
PARTS = ("train", "valid", "test")
REFIT = "refit"  # the folder of the run inside the run
USERS_A_BLOCK = 16_384
LIST_SCHEMA = pa.schema(
    {
        "user_id": pa.string(),
        "item_id": pa.list_(pa.string()),
        "item_index": pa.list_(pa.int64()),
        "score": pa.list_(pa.float32()),
    }
)


class _Checked(BaseModel):
    model_config = ConfigDict(strict=True)


class _DatasetOrigin(_Checked):
    name: str
    fingerprint: str


class _FeaturesOrigin(_Checked):
    name: str
    manifest_sha256: str
    modalities: list[str]


class _Record(_Checked):
    """What readers of `run.json` rely on; it holds more."""

    backbone: str
    settings: dict[str, Any]
    features: _FeaturesOrigin | None
    dataset: _DatasetOrigin
    chosen_on: str
    similarity: str
    split: str = "given"  # runs of earlier versions have no other
    device: str
    seed: int
    metrics: dict[str, dict[str, float | None]]
    epochs: int
    best_epoch: int
    seconds: dict[str, float]
    peak_memory_bytes: int
    threads: list[int] = []
    tuning: dict[str, Any] = {}
    refit: dict[str, Any] = {}


@dataclass(frozen=True)
class Names:
    """How users and items are called outside.

    Attributes:
        users: object (U,) of ids. items: object (I,) of ids.
        titles, labels: object (I,) of str, None where an item has none.
    """

    users: NDArray[np.object_]
    items: NDArray[np.object_]
    titles: NDArray[np.object_]
    labels: NDArray[np.object_]


@dataclass(frozen=True)
class Run:
    """A finished run, opened from its folder."""

    folder: Path
    record: dict[str, Any]
    user_embeddings: Scores
    item_embeddings: Scores
    split: SplitSets
    names: Names

    def __repr__(self) -> str:
        """A line: its arrays would fill pages."""
        recall = self.metrics["test"].get("recall@20")
        reached = "" if recall is None else f", recall@20 {recall:.4f} on test"
        return f"<Run {self.folder}: {self.record['backbone']}{reached}>"

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        metrics: dict[str, dict[str, float]] = self.record["metrics"]
        return metrics

    @property
    def similarity(self) -> Similarity:
        return "l2" if self.record["similarity"] == "l2" else "inner_product"

    @cached_property
    def refit(self) -> "Run | None":
        """The run of the model that was trained on train and valid together, if there is one."""
        return load_run(self.folder / REFIT) if REFIT in self.record else None

    @property
    def settings(self) -> BackboneSettings:
        kind = find_backbone(self.record["backbone"])
        try:
            return kind.Settings(**self.record["settings"])
        except ValidationError as error:
            wrong = ", ".join(str(each["loc"][0]) for each in error.errors() if each["loc"])
            raise JobError(
                self.folder / RECORD,
                f"holds settings that {kind.__name__} does not take ({wrong})",
                "train the run again, or use the version of it that trained it",
            ) from None

    @cached_property
    def model(self) -> Backbone:
        """The backbone as it was trained, rebuilt from the folder on the CPU."""
        kind = find_backbone(self.record["backbone"])
        inputs = make_inputs(self.split.train, self.features, torch.device("cpu"))
        model = kind(inputs, self.settings)
        path = self.folder / "model.safetensors"
        try:
            model.load_state_dict(_tensors(path))
        except RuntimeError:  # of other names or shapes
            raise JobError(path, f"is of no such {kind.__name__}", "train the run again") from None
        return model.eval()

    @cached_property
    def features(self) -> dict[str, ModalityFeatures]:
        """The frozen features that the backbone was given; empty where it had none."""
        if self.record["features"] is None:
            return {}
        path = self.folder / "features.safetensors"
        stored = _tensors(path)
        try:
            return {
                name: ModalityFeatures(stored[f"{name}.values"], stored[f"{name}.present"])
                for name in self.record["features"]["modalities"]
            }
        except KeyError as error:
            raise JobError(path, f"lacks {error}", "train the run again") from None

    @cached_property
    def rank(self) -> Rank:
        """Lists by the backbone's score, from the folder alone."""
        if find_backbone(self.record["backbone"]).rescores():
            return rank_by_model(self.model)
        return rank_by_vectors(self.user_embeddings, self.item_embeddings, self.similarity)

    def user_index(self, user_id: str) -> int:
        """The place of a user.

        Raises:
            JobError: the run knows no such user.
        """
        return self._index(self.names.users, user_id, "user")

    def item_index(self, item_id: str) -> int:
        """The place of an item.

        Raises:
            JobError: the run knows no such item.
        """
        return self._index(self.names.items, item_id, "item")

    def _index(self, ids: NDArray[np.object_], wanted: str, what: str) -> int:
        found = np.flatnonzero(ids == wanted)
        if not len(found):
            raise JobError(
                f"{what} {wanted!r}",
                f"is not among the {len(ids)} {what}s of {self.folder}",
                f"give an id such as {ids[0]!r}",
            )
        return int(found[0])

    def judge(
        self,
        part: JudgedPart,
        generic: Mapping[str, Feature] | None = None,
        rank: Rank | None = None,
    ) -> Judgement:
        """Measure the run on a part of the stored interactions.

        Args:
            rank: the run's own, where it is at hand.
            generic: the catalogue's own features, by `generic_features`: the one thing that no
                run holds, because it is large. Where they are given, the diversity of test's
                lists is measured by them; nothing is chosen by it, so that valid does without.

        Raises:
            JobError: the run has no such part.
        """
        split = self.split
        if part not in split.judged_parts():
            raise JobError(
                f"part {part!r}",
                f"is none that {self.folder} is judged on",
                f"take one of {', '.join(split.judged_parts())}",
            )
        return judge(
            rank or self.rank,
            split.seen_before(part),
            split.to_judge(part),
            train=split.train,
            candidates=split.candidates(part),
            generic=generic if part != "valid" else None,
        )

    def generic_features(self, dataset: Dataset) -> dict[str, Feature]:
        """The generic features by modality; none where the data set has no catalogue.

        Raises:
            JobError: it is not the data set that the run was made on.
        """
        interactions, made_on = dataset.interactions, self.record["dataset"]
        if interactions is None or interactions.fingerprint() != made_on["fingerprint"]:
            raise JobError(
                f"dataset {dataset.name}",
                f"is not what {self.folder} was made on",
                f"give {made_on['name']} as it was then",
            )
        return dataset.catalog.features if dataset.catalog else {}


def write_run(
    folder: Path,
    record: dict[str, Any],
    embeddings: tuple[Scores, Scores],
    model: Backbone,
    history: list[dict[str, Any]],
    split: SplitSets,
    features: dict[str, ModalityFeatures],
    names: Names,
    generic: Mapping[str, Feature],
) -> dict[str, dict[str, float]]:
    """Write all of a run's files into `folder` and return the metrics of each part judged.

    Args:
        record: what `run.json` says beside the metrics.
        model: as it was trained.
    """
    users, items = embeddings
    np.save(folder / "user_embeddings.npy", users)
    np.save(folder / "item_embeddings.npy", items)
    tensors = {
        name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()
    }
    # Not `save_file`, which lets nobody but the owner read the file.
    (folder / "model.safetensors").write_bytes(save(tensors))
    pd.DataFrame(history).to_parquet(folder / "history.parquet", index=False)
    if features:
        tensors = {f"{name}.values": f.values for name, f in features.items()}
        tensors |= {f"{name}.present": f.present for name, f in features.items()}
        (folder / "features.safetensors").write_bytes(save(tensors))
    _write_interactions(folder, split, names)

    # Judged as any later reader will: from the files alone, but for the generic features.
    draft = _open(folder, record)
    if not model.trained and record["device"] == "cpu":
        draft.__dict__["model"] = model.eval()  # the same again, which may have taken minutes
    rank, most = draft.rank, max(CUTOFFS)
    if find_backbone(record["backbone"]).rescores():  # whose scores cost more than his lists
        rank = remembered(rank, split.train, most, int(split.valid.sizes.max(initial=0)))
    judgements = {str(part): draft.judge(part, generic, rank) for part in split.judged_parts()}
    _write_per_user(folder, judgements, names.users)
    write_lists(draft, folder / "topk.parquet", most, rank=rank)
    return {part: judgement.metrics for part, judgement in judgements.items()}


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write `run.json`, the last of a run's files."""
    text = json.dumps(record, indent=2, allow_nan=False)
    write_file(folder / RECORD, (text + "\n").encode())


def load_run(folder: str | Path) -> Run:
    """Open a run folder.

    Raises:
        JobError: it is missing, half a run, of an unknown format, or its files disagree.
    """
    with _refusing_what_is_broken(Path(folder)):
        return _open(Path(folder), _record(Path(folder)))


def read_record(folder: str | Path) -> dict[str, Any]:
    """What `run.json` of a run folder says, without its other files.

    Raises:
        JobError: it is missing, can't be read or is of an unknown format.
    """
    with _refusing_what_is_broken(Path(folder)):
        return _record(Path(folder))


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RECORD
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(record, dict) or "format" not in record:
        raise ValueError(f"{RECORD} names no format")
    if record["format"] not in (RUN_FORMAT, NARROWED_FORMAT):
        raise JobError(path, f"run format {record['format']!r} is unknown", "use a newer pipeline")
    try:
        _Record.model_validate(record)
    except ValidationError as error:
        wrong = error.errors()[0]
        field = ".".join(map(str, wrong["loc"]))
        raise ValueError(f"{RECORD}, {field}: {wrong['msg'].lower()}") from None
    return record


@contextmanager
def _refusing_what_is_broken(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        missing = Path(error.filename or str(error)).name  # pyarrow names the file in its text
        raise JobError(folder, f"is not a run: {missing} is missing", "train it again") from None
    except (ValueError, KeyError, TypeError, OSError, EOFError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise JobError(folder, f"the run can't be read ({reason})", "train it again") from None


def _open(folder: Path, record: dict[str, Any]) -> Run:
    users = np.load(folder / "user_embeddings.npy", mmap_mode="r", allow_pickle=False)
    items = np.load(folder / "item_embeddings.npy", mmap_mode="r", allow_pickle=False)
    people = pd.read_parquet(folder / "users.parquet")
    user_ids = people["user_id"].to_numpy(dtype=object)
    catalogue = pd.read_parquet(folder / "items.parquet")
    if (len(user_ids), len(catalogue)) != (len(users), len(items)):
        raise ValueError("the number of embeddings is not that of the ids")
    if {users.dtype, items.dtype} != {np.dtype(np.float32)} or users.ndim != 2:
        raise ValueError("the embeddings are no float32 matrices")
    if users.shape[1:] != items.shape[1:]:
        raise ValueError("the embeddings of users and items are not of one width")
    pairs = pd.read_parquet(folder / "interactions.parquet")

    def sets(part: str) -> ItemSets:
        rows = pairs[pairs["part"] == part]
        user = rows["user_index"].to_numpy(dtype=np.int64)
        item = rows["item_index"].to_numpy(dtype=np.int64)
        return ItemSets.from_pairs(user, item, len(users), len(items))

    chosen_on: Literal["valid", "test"] = "test" if record["chosen_on"] == "test" else "valid"
    return Run(
        folder=folder,
        record=record,
        user_embeddings=users,
        item_embeddings=items,
        split=SplitSets(
            sets("train"),
            sets("valid"),
            sets("test"),
            chosen_on,
            record.get("split", "given"),
            people["judged"].to_numpy(dtype=bool) if "judged" in people else None,
        ),
        names=Names(
            user_ids,
            catalogue["item_id"].to_numpy(dtype=object),
            _texts(catalogue["title"]),
            _texts(catalogue["label"]),
        ),
    )


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise JobError(path, f"can't be read ({reason})", "train the run again") from None


def _texts(column: "pd.Series[str]") -> NDArray[np.object_]:
    """Strings, None where there is none."""
    texts: NDArray[np.object_] = column.astype(object).where(column.notna(), None).to_numpy()
    return texts


def _write_interactions(folder: Path, split: SplitSets, names: Names) -> None:
    users = {"user_id": pa.array(names.users, pa.string())}
    if split.judged is not None:
        users["judged"] = pa.array(split.judged)
    pq.write_table(pa.table(users), folder / "users.parquet")
    items = {
        "item_id": pa.array(names.items, pa.string()),
        "title": pa.array(names.titles, pa.string()),
        "label": pa.array(names.labels, pa.string()),
    }
    pq.write_table(pa.table(items), folder / "items.parquet")
    keys = [sets.keys for sets in split.parts().values()]
    user, item = np.divmod(np.concatenate(keys), split.train.n_items)
    part = np.repeat(np.arange(len(PARTS)), [len(k) for k in keys])
    table = {
        "user_index": user,
        "item_index": item,
        "part": pa.DictionaryArray.from_arrays(pa.array(part, pa.int8()), list(PARTS)),
    }
    pq.write_table(pa.table(table), folder / "interactions.parquet")


def _write_per_user(
    folder: Path, judgements: dict[str, Judgement], user_ids: NDArray[np.object_]
) -> None:
    frames = [
        pd.DataFrame({"part": part, "user_id": user_ids[judgement.users], **judgement.per_user})
        for part, judgement in judgements.items()
    ]
    pd.concat(frames).to_parquet(folder / "per_user.parquet", index=False)


def write_lists(
    run: Run,
    path: Path,
    k: int,
    candidates: Indices | None = None,
    rank: Rank | None = None,
    leave_out_test: bool = False,
) -> None:
    """One row a user: the ids and scores of the k best items not in train or valid, nor in test
    where that is asked.

    Users are ranked and written in blocks, so that memory does not grow with their number.

    Args:
        candidates: the items that may be listed, ascending; all where None.
        rank: the run's own, where it is at hand.
    """
    rank = rank or run.rank
    seen = run.split.seen_before("test")
    if leave_out_test:
        seen = seen.merge(run.split.test)
    ids = pa.array(run.names.items, pa.string())
    n_users = len(run.names.users)
    with pq.ParquetWriter(path, LIST_SCHEMA) as writer, progress(n_users, "listing") as advance:
        for start in range(0, n_users, USERS_A_BLOCK):
            users = np.arange(start, min(start + USERS_A_BLOCK, n_users))
            lists, scores = rank(users, k, seen.take(users), candidates)
            filled = lists >= 0
            offsets = pa.array(np.concatenate([[0], np.cumsum(filled.sum(axis=1))]), pa.int32())
            items = pa.array(lists[filled])
            columns = [
                pa.array(run.names.users[users], pa.string()),
                pa.ListArray.from_arrays(offsets, ids.take(items)),
                pa.ListArray.from_arrays(offsets, items),
                pa.ListArray.from_arrays(offsets, pa.array(scores[filled])),
            ]
            writer.write_batch(pa.record_batch(columns, schema=LIST_SCHEMA))
            advance(len(users))
