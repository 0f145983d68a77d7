"""What the tests of stage one share: a quick distillation, and made-up catalogues."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sgfd.dataset import Dataset, Feature, ItemCatalog, Vocabulary, load_dataset
from sgfd.distill import DistillResult, SGFDSettings, distill

FILES = ("features.parquet", "image.npy", "text.npy", "student.safetensors")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So small networks are slower on two threads, and far slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def quick() -> SGFDSettings:
    return SGFDSettings(dimension=16, epochs=15, patience=15)


@pytest.fixture(scope="session")
def sample_features(tmp_path_factory: pytest.TempPathFactory, quick: SGFDSettings) -> DistillResult:
    """The sample, distilled quickly and without a break."""
    target = tmp_path_factory.mktemp("sets") / "sample"
    return distill(load_dataset("sample"), target, quick, threads=1)


@pytest.fixture
def made() -> Callable[..., Dataset]:
    """Makes a data set of n items from labels and arrays by modality."""

    def make(labels: list[int] | None, n: int = 12, **features: np.ndarray) -> Dataset:
        known = None if labels is None else np.asarray(labels)
        names = () if known is None else tuple(str(i) for i in range(known.max(initial=-1) + 1))
        modalities = {name: Feature.from_array(name, values) for name, values in features.items()}
        items = ItemCatalog(Vocabulary([str(i) for i in range(n)]), modalities, known, names)
        return Dataset("made", "native", None, items, None)

    return make


@pytest.fixture
def same_bytes() -> Callable[[Path, Path], bool]:
    """Whether two feature sets of the sample have the same numbers, to the last bit."""

    def same(one: Path, other: Path) -> bool:
        return all((one / f).read_bytes() == (other / f).read_bytes() for f in FILES)

    return same


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, int], None]:
    """Strikes Ctrl-C, once, when a reader of batches is asked for its n-th."""

    def arm(kind: type, number: int) -> None:
        read, done = kind.read, []

        def interrupt_once(self, index):
            done.append(len(index))
            if len(done) == number:
                signal.raise_signal(signal.SIGINT)
            return read(self, index)

        monkeypatch.setattr(kind, "read", interrupt_once)

    return arm
