"""Both stages on another device than the CPU: a real GPU where there is one, and a stand-in.

The stand-in is a device `standin:0`. What lies on it is computed by the CPU's kernels, so that its
numbers are the CPU's; but as on a GPU, an operation that meets tensors of both devices fails, and
numpy reads none before `.cpu()`. To code that asks, its tensors are on CUDA. Each operation must
have a CUDA kernel for such tensors, or be made of others, by torch's own native_functions.yaml. It
says nothing of those kernels' speed and rounding, nor of the types that they take.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torchgen
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torchgen.gen import parse_native_yaml
from torchgen.model import DispatchKey

import sgfd.distill.stage
import sgfd.recommenders.preparation
from sgfd import featureset
from sgfd.dataset import load_dataset
from sgfd.distill import METHODS, distill
from sgfd.jobs import use_device
from sgfd.recommenders import Run, backbone_places, find_backbone, train
from sgfd.recommenders.battery import (
    BATTERY,
    gradients_reach_every_parameter,
    lists_are_those_of_brute_force,
    losses_are_finite_scalars,
    odd_shapes_are_handled,
    training_finds_what_is_planted,
)

try:
    from torch.utils.backend_registration import (
        _DummyBackendModule,
        _setup_privateuseone_for_python_backend,
    )
except ImportError:
    pytest.skip("this torch takes no device in Python", allow_module_level=True)

aten = torch.ops.aten


class OnStandIn(torch.Tensor):
    """A tensor on the device; what it holds lies in a CPU tensor."""

    is_cuda = True
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> "OnStandIn":
        strided = held.layout == torch.strided
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride() if strided else torch.empty(held.shape).stride(),
            storage_offset=held.storage_offset() if strided else 0,
            dtype=held.dtype,
            device=torch.device("standin", 0),
        )
        tensor.held = held
        return tensor

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run_held(func, args, kwargs or {})

    def tolist(self) -> list:
        """Which a GPU's tensor has, and which torch refuses a wrapped one."""
        return self.held.tolist()


class Dispatch(TorchDispatchMode):
    """Sees what makes tensors on the device, where no argument lies on it yet."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run_held(func, args, kwargs or {})


@cache
def known_operations() -> tuple[dict, dict]:
    """By name, what torch's table says of an operation; by device, which have kernels there."""
    table = Path(torchgen.__file__).parent / "packaged/ATen/native"
    parsed = parse_native_yaml(table / "native_functions.yaml", table / "tags.yaml")
    by_name = {str(known.func.name): known for known in parsed.native_functions}
    return by_name, parsed.backend_indices


@cache
def runs_on_cuda(operation: str, layouts: frozenset[torch.layout]) -> bool:
    by_name, kernels = known_operations()
    known = by_name[operation.removeprefix("aten.").removesuffix(".default")]
    if known.structured_delegate is not None:
        known = by_name[str(known.structured_delegate)]
    if torch.sparse_csr in layouts:
        device = DispatchKey.SparseCsrCUDA
    elif torch.sparse_coo in layouts:
        device = DispatchKey.SparseCUDA
    else:
        device = DispatchKey.CUDA
    return bool(
        kernels[device].has_kernel(known)
        or known.has_composite_implicit_autograd_kernel
        or known.has_composite_explicit_autograd_kernel
        or known.has_composite_explicit_autograd_non_functional_kernel
    )


def tensors_in(tree: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def run_held(func, args, kwargs):
    """An operation, by the CPU's kernel, with what it gives put on the device it belongs to."""
    given = tensors_in((args, kwargs))
    here = [tensor for tensor in given if isinstance(tensor, OnStandIn)]
    asked = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.device)]
    if here and not asked and func is not aten.copy_.default:
        elsewhere = [t for t in given if not isinstance(t, OnStandIn) and t.dim() > 0]
        assert not elsewhere, f"{func} meets tensors of two devices"
    held_args, held_kwargs = tree_map_only(OnStandIn, lambda tensor: tensor.held, (args, kwargs))
    if here:
        layouts = frozenset(tensor.layout for tensor in tensors_in((held_args, held_kwargs)))
        assert runs_on_cuda(str(func), layouts), f"{func} of {set(layouts)} has no CUDA kernel"
    held_args, held_kwargs = tree_map_only(
        torch.device, lambda _: torch.device("cpu"), (held_args, held_kwargs)
    )
    result = func(*held_args, **held_kwargs)
    stays = asked[0].type == "standin" if asked else bool(here)
    if not stays or func is aten._local_scalar_dense.default:
        return result
    if func is aten.copy_.default:
        return args[0]
    wrapped = tree_map_only(torch.Tensor, OnStandIn, result)
    sparse = any(t.layout != torch.strided for t in tensors_in((held_args, result)))
    if asked or sparse:
        return wrapped  # nothing is shared
    return return_and_correct_aliasing(func, args, kwargs, wrapped)


def without_gradient(begun: torch.inference_mode) -> None:
    begun.off = torch.no_grad()
    begun.off.__enter__()


class Generator(_DummyBackendModule):
    """The device's random numbers are the CPU's."""

    get_rng_state = staticmethod(lambda _: torch.get_rng_state())
    set_rng_state = staticmethod(lambda state, _: torch.set_rng_state(state))


# Before any test runs: from the first backward pass on, torch knows of no further device.
_setup_privateuseone_for_python_backend("standin", Generator())
STAND_IN = torch.device("standin", 0)


@pytest.fixture
def on_stand_in(monkeypatch) -> Callable:
    """Inside `with on_stand_in():` both stages compute on the device."""

    @contextmanager
    def computing() -> Iterator[torch.device]:
        with monkeypatch.context() as patch, Dispatch():
            # Without gradient alone: inference tensors can't be wrapped.
            patch.setattr(torch.inference_mode, "__enter__", without_gradient)
            patch.setattr(
                torch.inference_mode, "__exit__", lambda ended, *e: ended.off.__exit__(*e)
            )
            for stage in (sgfd.distill.stage, sgfd.recommenders.preparation):
                patch.setattr(stage, "use_device", lambda _: STAND_IN)
            yield STAND_IN

    return computing


@pytest.fixture(scope="module")
def sample_features(tmp_path_factory) -> featureset.FeatureSet:
    target = tmp_path_factory.mktemp("features") / "raw"
    distill(load_dataset("sample"), target, method="raw", threads=1)
    return featureset.load(target)


def test_the_stand_in_finds_what_a_gpu_would(on_stand_in):
    with on_stand_in() as device:
        there, here = torch.ones(2, 3, device=device), torch.ones(2, 3)
        assert there.is_cuda and (there + 1).device == device
        assert torch.equal((there * 2).cpu(), here * 2)
        with pytest.raises(AssertionError, match="two devices"):
            there + here
        with pytest.raises(RuntimeError):
            there.numpy()


def test_an_operation_without_a_cuda_kernel_would_be_found():
    assert runs_on_cuda("aten.addmm.default", frozenset({torch.strided, torch.sparse_csr}))
    assert runs_on_cuda("aten.add.Tensor", frozenset({torch.strided}))  # by its out variant
    assert not runs_on_cuda("aten.mkldnn_linear.default", frozenset({torch.strided}))
    assert not runs_on_cuda("aten.topk.default", frozenset({torch.sparse_csr}))


# Each backbone, with features and without where it can.
CASES = [
    (name, given)
    for name in backbone_places()
    for given in (True, False)
    if (find_backbone(name).uses_features if given else not find_backbone(name).needs_features)
]


@pytest.mark.parametrize(("name", "with_features"), CASES)
def test_a_backbone_trains_there_as_on_the_cpu(
    name, with_features, on_stand_in, sample_features, tmp_path
):
    features = sample_features if with_features else None

    def trained(folder: str, **options) -> Run:
        settings = find_backbone(name).Settings(epochs=1, batch_size=2048)
        root = tmp_path / folder
        data = load_dataset("sample")
        return train(data, name, features, settings, threads=1, runs_root=root, **options)

    splits = ["given"]
    if with_features and find_backbone(name).scores_new_items:
        splits.append("cold-items")
    for split in splits:
        here = trained(f"cpu-{split}", split=split)
        with on_stand_in():
            there = trained(f"gpu-{split}", split=split)
        assert there.metrics == here.metrics
        for file in ("history.parquet", "user_embeddings.npy", "item_embeddings.npy"):
            if (here.folder / file).exists():
                assert (there.folder / file).read_bytes() == (here.folder / file).read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_a_feature_set_is_made_there_as_on_the_cpu(method, on_stand_in, tmp_path):
    kind = METHODS[method].settings
    few = {"epochs": 2} if "epochs" in {field.name for field in fields(kind)} else {}

    def made(folder: str) -> Path:
        target = tmp_path / folder / "set"
        return distill(
            load_dataset("sample"), target, kind(**few), method=method, threads=1
        ).artifact

    here = made("cpu")
    with on_stand_in():
        there = made("gpu")
    rows, same = featureset.load(here).modalities, featureset.load(there).modalities
    for name, values in rows.items():
        np.testing.assert_array_equal(same[name][:], values[:])


# Whole trainings are above.
OF_ITS_OWN = [
    losses_are_finite_scalars,
    gradients_reach_every_parameter,
    lists_are_those_of_brute_force,
    odd_shapes_are_handled,
]


@pytest.mark.parametrize("check", OF_ITS_OWN, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", backbone_places())
def test_the_battery_passes_there(name, check, on_stand_in):
    with on_stand_in() as device:
        check(find_backbone(name), device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("check", BATTERY, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", backbone_places())
def test_the_battery_passes_on_a_gpu(name, check):
    if name == "popular" and check is training_finds_what_is_planted:
        pytest.skip("no personal model")
    check(find_backbone(name), use_device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("method", METHODS)
def test_a_feature_set_is_made_twice_the_same_on_a_gpu(method, tmp_path):
    data, kind = load_dataset("sample"), METHODS[method].settings
    for folder in ("one", "same"):
        distill(data, tmp_path / folder, kind(), method=method, device="cuda", threads=1)
    one, same = (featureset.load(tmp_path / folder).modalities for folder in ("one", "same"))
    for name, values in one.items():
        np.testing.assert_array_equal(same[name][:], values[:])
