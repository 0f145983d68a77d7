"""A feature set against how others hold the same rows, as a thing that teams share.

    python benchmarks/peers.py
    python benchmarks/peers.py --features artifacts/office --feast-python ../feast/bin/python

The second interpreter is of an environment with `pip install feast==0.67.0`. The rows are those of
all modalities that are not compressed; without `--features`, of what `--method raw` makes of the
sample. MMRec and `datasets` read what `features export` writes; Ducho's folders are written here,
a file an item and none where it lacks the modality; Feast has a local repository, of a Parquet file
(offline) and what it materialises of it in SQLite (online). Each has its own reader:

- `files`, `bytes`: all that lies in the folder;
- `all`, `100 items`: seconds to open the folder and have the rows of these items, found by their
  ids, as float32 arrays; the best of the repeats, so that files are in memory and the cache of
  `datasets` is filled;
- `flipped bit`: one bit is flipped at each tenth of the largest file that the reader takes rows
  from (`verify`: of all), one at a time: how many the reader `refused` by an error, `read as it
  is` (wrong rows and no word), and how many left all rows `unharmed`;
- `lacking rows`: what the reader gives for an item that lacks a modality;
- `new items`: the file of a student that embeds them, if the folder has one;
- `versions`: the hash of the file above, if another file of the folder names it.
"""

import argparse
import hashlib
import inspect
import json
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from shutil import copytree

import numpy as np
import pandas as pd

from sgfd.dataset import load_dataset
from sgfd.distill import distill
from sgfd.featureset import FeatureSet, load, verify
from sgfd.featureset.formats.export import RECORD, export

SEED = 0
SOME = 100
COLUMNS = ("", "files", "bytes", "all", f"{SOME} items", "flipped bit", "lacking rows", "new items")
LINE = "{:15}{:>6}{:>12}{:>9}{:>11}  {:29}{:14}{:21}{}"

Rows = dict[str, np.ndarray]  # by modality: float32 (n, d), NaN where an item is told to lack it
Read = Callable[[list[str]], tuple[Rows, float]]  # the rows of these items, and seconds


@dataclass(frozen=True)
class Peer:
    name: str
    folder: Path
    holding: str  # pattern of the files that rows are read from
    read: Read

    @cached_property
    def largest(self) -> Path:
        return max(self.folder.glob(self.holding), key=lambda file: file.stat().st_size)

    def others(self) -> list[Path]:
        """All files but the largest."""
        return [f for f in self.folder.rglob("*") if f.is_file() and f != self.largest]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=Path, help="a feature set; nothing is written there")
    parser.add_argument("--feast-python", help="the Python of an environment with Feast")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "sgfd"
        if options.features:
            copytree(load(options.features).path, folder)
        else:
            distill(load_dataset("sample"), folder, method="raw", seed=SEED)
        opened = load(folder)
        rows = {m.name: np.array(opened.modalities[m.name]) for m in opened.manifest.plain}
        made = opened.manifest
        print(f"{made.dataset.name} by {made.method}, {opened.n_items} items: {', '.join(rows)}")
        print(LINE.format(*COLUMNS, "versions"))
        for peer in peers(opened, rows, options.feast_python):
            if isinstance(peer, Peer):
                cells = measure(peer, opened.item_ids.tolist(), rows, options.repeats)
                print(LINE.format(peer.name, *cells), flush=True)
            else:
                print(f"{peer:15}not installed", flush=True)


def peers(opened: FeatureSet, rows: Rows, feast_python: str | None) -> Iterator[Peer | str]:
    """Each with its files written; of one that is not installed, the name alone."""
    ours, names = opened.path, list(rows)
    mmrec, ducho, hub, feast = (ours.with_name(name) for name in ("mmrec", "ducho", "hub", "feast"))
    yield Peer("sgfd, load", ours, "*.npy", clocked(read_ours, ours, names))
    yield Peer("sgfd, verify", ours, "*", clocked(read_verified, ours, names))
    yield Peer("sgfd, pandas", ours, "*.parquet", clocked(read_table, ours, names))
    write_export(opened, mmrec, "mmrec", names)
    yield Peer("MMRec", mmrec, "*.npy", clocked(read_mmrec, mmrec, names))
    write_ducho(ducho, opened.item_ids.tolist(), rows)
    yield Peer("Ducho", ducho, "**/*.npy", clocked(read_ducho, ducho, names))
    if find_spec("datasets"):
        write_export(opened, hub, "hf-datasets", names)
        yield Peer("datasets", hub, "**/*.parquet", clocked(read_hub, hub, names))
    else:
        yield "datasets"
    if feast_python and has_feast(feast_python):
        with feast_process(feast_python, ours, feast, names) as ask:
            yield Peer("Feast, offline", feast, "rows.parquet", partial(ask, "offline"))
            yield Peer("Feast, online", feast, "online.db", partial(ask, "online"))
    else:
        yield "Feast"


def measure(peer: Peer, ids: list[str], rows: Rows, repeats: int) -> list[str]:
    """The cells of a peer's line."""
    some = np.random.default_rng(SEED).choice(ids, min(SOME, len(ids)), replace=False).tolist()
    sizes = [file.stat().st_size for file in (peer.largest, *peer.others())]
    whole, _ = peer.read(ids)
    seconds = [min(peer.read(wanted)[1] for _ in range(repeats)) for wanted in (ids, some)]
    return [
        str(len(sizes)),
        f"{sum(sizes):,}",
        *(f"{best:.4f}" for best in seconds),
        flipped_bits(peer, ids, whole),
        lacking_rows(whole, rows),
        next((file.name for file in peer.others() if "student" in file.name), "no"),
        hash_named(peer),
    ]


def flipped_bits(peer: Peer, ids: list[str], whole: Rows) -> str:
    found: Counter[str] = Counter()
    content = peer.largest.read_bytes()
    for tenth in range(1, 10):
        changed = bytearray(content)
        changed[len(content) * tenth // 10] ^= 1
        peer.largest.write_bytes(changed)
        found[outcome(peer, ids, whole)] += 1
    peer.largest.write_bytes(content)
    return ", ".join(f"{what} {times}" for what, times in found.most_common())


def outcome(peer: Peer, ids: list[str], whole: Rows) -> str:
    try:
        read, _ = peer.read(ids)
    except Exception:  # whatever its reader happens to raise
        return "refused"
    same = all(np.array_equal(read[name], whole[name], equal_nan=True) for name in whole)
    return "unharmed" if same else "read as it is"


def lacking_rows(read: Rows, rows: Rows) -> str:
    found = set()
    for name, true in rows.items():
        lacking = np.isnan(true[:, 0])
        if not np.array_equal(read[name][~lacking], true[~lacking]):
            return "OTHER ROWS"
        if lacking.any():
            found.add(what_stands(read[name][lacking], true[~lacking].mean(axis=0)))
    return ", ".join(sorted(found)) or "none lacks"


def what_stands(given: np.ndarray, mean: np.ndarray) -> str:
    if np.isnan(given).all():
        return "told apart"
    if not given.any():
        return "zeros"
    return "the mean" if np.allclose(given, mean, atol=1e-5) else "other numbers"


def hash_named(peer: Peer) -> str:
    content = peer.largest.read_bytes()
    for kind in ("sha256", "sha1", "md5"):
        digest = hashlib.new(kind, content)
        forms = (digest.digest(), digest.hexdigest().encode())
        if any(form in file.read_bytes() for file in peer.others() for form in forms):
            return kind
    return "no"


def clocked(
    read: Callable[[Path, list[str], list[str]], Rows], folder: Path, names: list[str]
) -> Read:
    def run(wanted: list[str]) -> tuple[Rows, float]:
        start = time.perf_counter()
        rows = read(folder, names, wanted)
        return rows, time.perf_counter() - start

    return run


def stacked(values: Iterable[object]) -> np.ndarray:
    """Rows (n, d) of what a reader gives for each item: None, or nothing in it, becomes NaN."""
    rows = [np.asarray(value, np.float32) for value in values]
    width = max(row.size for row in rows if row.ndim)
    lacking = np.full(width, np.nan, np.float32)
    return np.stack([row if row.ndim and row.size else lacking for row in rows])


def read_ours(folder: Path, names: list[str], wanted: list[str]) -> Rows:
    opened = load(folder)
    rows = opened.align(np.array(wanted, dtype=object)).rows
    return {name: np.asarray(opened.modalities[name][rows]) for name in names}


def read_verified(folder: Path, names: list[str], wanted: list[str]) -> Rows:
    if problems := verify(folder):
        raise ValueError(problems[0])
    return read_ours(folder, names, wanted)


def read_table(folder: Path, names: list[str], wanted: list[str]) -> Rows:
    table = pd.read_parquet(folder / "features.parquet", columns=["item_id", *names])
    found = table.set_index("item_id").loc[wanted]
    return {name: stacked(found[name]) for name in names}


def write_export(opened: FeatureSet, folder: Path, kind: str, names: list[str]) -> None:
    export(opened, folder, kind, names)
    (folder / RECORD).unlink()  # ours, not the peer's


def read_mmrec(folder: Path, names: list[str], wanted: list[str]) -> Rows:
    ids = pd.read_csv(folder / "i_id_mapping.csv", sep="\t", dtype=str, keep_default_na=False)
    rows = pd.Index(ids["item_id"]).get_indexer(pd.Index(wanted))
    return {name: np.load(folder / f"{name}_feat.npy")[rows] for name in names}


def write_ducho(folder: Path, ids: list[str], rows: Rows) -> None:
    for name, values in rows.items():
        layer = ducho_layer(folder, name)
        layer.mkdir(parents=True)
        for item, row in zip(ids, values, strict=True):
            if not np.isnan(row[0]):
                np.save(layer / f"{item}.npy", row[None])


def read_ducho(folder: Path, names: list[str], wanted: list[str]) -> Rows:
    def row(file: Path) -> np.ndarray | None:
        return np.load(file)[0] if file.exists() else None

    layers = {name: ducho_layer(folder, name) for name in names}
    return {
        name: stacked(row(layer / f"{item}.npy") for item in wanted)
        for name, layer in layers.items()
    }


def ducho_layer(folder: Path, name: str) -> Path:
    return folder / name / "torch" / "model" / "layer"


def read_hub(folder: Path, names: list[str], wanted: list[str]) -> Rows:
    datasets = import_module("datasets")
    datasets.disable_progress_bars()
    cache = folder.with_name("cache")
    table = datasets.load_dataset(str(folder), cache_dir=str(cache), split="train")
    ids = pd.Index(table.select_columns("item_id").to_pandas()["item_id"])
    # Not "numpy", which fails where the first item lacks a modality (huggingface/datasets#8432).
    found = table.with_format("pandas", columns=names)[ids.get_indexer(pd.Index(wanted))]
    return {name: stacked(found[name]) for name in names}


def has_feast(python: str) -> bool:
    try:
        return not subprocess.run([python, "-c", "import feast"], capture_output=True).returncode
    except OSError:
        return False


@contextmanager
def feast_process(
    python: str, ours: Path, folder: Path, names: list[str]
) -> Iterator[Callable[[str, list[str]], tuple[Rows, float]]]:
    """What reads by Feast, in a process of that Python, which makes the repository first."""
    folder.mkdir()
    table, out = ours / "features.parquet", folder.with_name("feast.npz")
    program = "\n".join([FEAST_IMPORTS, inspect.getsource(stacked), FEAST])
    command = [python, "-c", program, str(table), str(folder), str(out), *names]

    def ask(reader: str, wanted: list[str]) -> tuple[Rows, float]:
        print(json.dumps([reader, wanted]), file=child.stdin, flush=True)
        seconds, error = answer()
        if error:
            raise ValueError(error)
        with np.load(out) as rows:
            return dict(rows), seconds

    def answer() -> tuple[float, str | None]:
        line = child.stdout.readline() if child.stdout else ""
        if not line:
            raise SystemExit("Feast's process has died")
        seconds, error = json.loads(line)
        return seconds, error

    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as child:
        answer()  # to the writing
        yield ask


FEAST_IMPORTS = """
import json, os, sys, time
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32
"""
FEAST = """
WHEN, DAY = datetime(2020, 1, 1, tzinfo=timezone.utc), timedelta(days=1)
CONFIGURATION = {
    "project": "peers", "provider": "local", "registry": "registry.db",
    "online_store": {"type": "sqlite", "path": "online.db"}, "offline_store": {"type": "file"},
    "entity_key_serialization_version": 3,
}
table, folder, out, *names = sys.argv[1:]
columns = ["rows:" + name for name in names]
answers, sys.stdout = sys.stdout, open(os.devnull, "w")

def write():
    with open(folder + "/feature_store.yaml", "w") as file:
        json.dump(CONFIGURATION, file)
    rows = pd.read_parquet(table, columns=["item_id", *names])
    rows.assign(event_timestamp=WHEN).to_parquet(folder + "/rows.parquet")
    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
    source = FileSource(path="rows.parquet", timestamp_field="event_timestamp")
    fields = [Field(name=name, dtype=Array(Float32)) for name in names]
    store = FeatureStore(repo_path=folder)
    store.apply([item, FeatureView(name="rows", entities=[item], schema=fields, source=source)])
    store.materialize(WHEN - DAY, WHEN + DAY)

def online(store, ids):
    return store.get_online_features(columns, [{"item_id": item} for item in ids]).to_dict()

def offline(store, ids):
    wanted = pd.DataFrame({"item_id": ids, "event_timestamp": WHEN})
    return store.get_historical_features(wanted, columns).to_df().set_index("item_id").loc[ids]

def read(reader, ids):
    start = time.perf_counter()
    found = {"online": online, "offline": offline}[reader](FeatureStore(repo_path=folder), ids)
    rows = {name: stacked(found[name]) for name in names}
    seconds = time.perf_counter() - start
    np.savez(out, **rows)
    return seconds

write()
print(json.dumps([0, None]), file=answers, flush=True)
for line in sys.stdin:
    try:
        answer = read(*json.loads(line)), None
    except Exception as error:
        answer = 0, repr(error)
    print(json.dumps(answer), file=answers, flush=True)
"""

if __name__ == "__main__":
    main()
