"""What every backbone must pass, third parties' included.

    from sgfd.recommenders.battery import BATTERY

    @pytest.mark.parametrize("check", BATTERY)
    def test_my_backbone(check):
        check(MyBackbone)  # or check(MyBackbone, "cuda")

Each check raises an AssertionError that says what is wrong. The data are made up: groups of users
who interact with the items of their group alone, so that a model that learns anything finds the
items that are held out, and one that does not can't.
"""

import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sgfd.jobs import WorkFolder, seed_everything
from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch
from sgfd.recommenders.evaluation import judge
from sgfd.recommenders.inputs import Inputs, ModalityFeatures, make_inputs
from sgfd.recommenders.item_sets import ItemSets
from sgfd.recommenders.ranking import rank_by_model
from sgfd.recommenders.sampling import EpochBatches
from sgfd.recommenders.training import TrainingState, fit

Device = torch.device | str
GROUPS, USERS, ITEMS, SEEN = 4, 25, 12, 8  # of each group; SEEN of its items train, the rest test
CPU = torch.device("cpu")
QUICK = {  # of these, those that a backbone has
    "learning_rate": 0.005,
    "batch_size": 128,
    "epochs": 60,
    "patience": 60,
    "embedding_dim": 32,
}


def losses_are_finite_scalars(kind: type[Backbone], device: Device = CPU) -> None:
    """Every part of the loss is one finite number."""
    for inputs in _inputs_of(kind, device):
        model = _build(kind, inputs)
        for name, part in _loss(model, inputs).items():
            assert part.dim() == 0, f"{name} is no scalar but has shape {tuple(part.shape)}"
            assert torch.isfinite(part), f"{name} is {part}"


def gradients_reach_every_parameter(kind: type[Backbone], device: Device = CPU) -> None:
    """No parameter is left out of the training; some step moves each of them."""
    for inputs in (*_inputs_of(kind, device), *_one_modality(kind, device)) if kind.trained else ():
        model = _build(kind, inputs).train()
        reached = {name: 0.0 for name, _ in model.named_parameters()}
        for step in range(3):
            model.zero_grad()
            torch.stack(list(_loss(model, inputs, step).values())).sum().backward()  # type: ignore[no-untyped-call]
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    assert torch.isfinite(parameter.grad).all(), f"gradient of {name}"
                    reached[name] += float(parameter.grad.abs().sum())
        idle = [name for name, total in reached.items() if total == 0]
        assert not idle, f"no gradient reaches {', '.join(idle)}"


def training_finds_what_is_planted(kind: type[Backbone], device: Device = CPU) -> None:
    """Recall@4 of the held-out items reaches 0.8, where chance gives 0.1; the loss falls."""
    for inputs in _inputs_of(kind, device):
        model, state = _train(kind, inputs, partial(_recall, inputs))
        recall = _recall(inputs, model)
        assert recall >= 0.8, f"recall@4 is {recall:.2f} {'with' if inputs.features else 'without'}"
        if state.history:
            losses = [_total(row) for row in state.history]
            assert min(losses) < 0.95 * losses[0], f"the loss does not fall: {losses}"


def one_seed_gives_one_result(kind: type[Backbone], device: Device = CPU) -> None:
    """Two trainings with a seed are equal to the last bit."""
    inputs = _inputs_of(kind, device)[0]
    one, same = (_train(kind, inputs, epochs=2)[0].state_dict() for _ in range(2))
    for name, value in one.items():
        assert torch.equal(value, same[name]), f"{name} differs between two trainings"


def a_stored_model_ranks_the_same(kind: type[Backbone], device: Device = CPU) -> None:
    """Built again from inputs and settings, with the weights put back, it gives the same lists."""
    for inputs in _inputs_of(kind, device):
        model, _ = _train(kind, inputs, epochs=2)
        torch.manual_seed(99)  # what is drawn while it is built must not matter
        again = _build(kind, inputs, seed=99)
        again.load_state_dict(model.state_dict())
        everybody = np.arange(inputs.n_users)
        lists, _ = rank_by_model(model)(everybody, 5, inputs.seen)
        stored, _ = rank_by_model(again)(everybody, 5, inputs.seen)
        assert np.array_equal(lists, stored), "the lists differ"


def lists_are_those_of_brute_force(kind: type[Backbone], device: Device = CPU) -> None:
    """The best unseen items are those of the whole table of scores; rescoring agrees."""
    for inputs in _inputs_of(kind, device):
        model, _ = _train(kind, inputs, epochs=2)
        scores = _all_scores(model, inputs)
        assert torch.isfinite(scores).all(), "a score is not finite"
        everybody = np.arange(inputs.n_users)
        _, found = rank_by_model(model)(everybody, 5, inputs.seen)
        seen = torch.zeros_like(scores, dtype=torch.bool)
        seen[inputs.users.cpu(), inputs.items.cpu()] = True
        best = scores.masked_fill(seen, -torch.inf).topk(5, dim=1).values.numpy()
        np.testing.assert_allclose(found, best, rtol=1e-4, atol=1e-4)


def odd_shapes_are_handled(kind: type[Backbone], device: Device = CPU) -> None:
    """One user, one item more than he has; users and items without interactions; no modality."""
    for n_users, n_items, user, item in (
        (1, 2, [0], [0]),
        (3, 4, [0, 0, 2], [1, 3, 1]),
        (1, 1, [0], [0]),
    ):
        seen = ItemSets.from_pairs(np.array(user), np.array(item), n_users, n_items)
        lacking = torch.zeros(n_items, dtype=torch.bool)
        values = torch.randn(n_items, 3)
        some = torch.arange(n_items) % 2 == 0
        features = {
            "image": ModalityFeatures(values * some[:, None], some),
            "text": ModalityFeatures(torch.zeros(n_items, 2), lacking),
        }
        inputs = make_inputs(seen, features if kind.uses_features else {}, torch.device(device))
        model, _ = _train(kind, inputs, epochs=2)
        scores = _all_scores(model, inputs)
        assert torch.isfinite(scores).all(), f"{n_users} users, {n_items} items: {scores}"
        lists, _ = rank_by_model(model)(np.arange(n_users), 3, seen)
        assert lists.shape == (n_users, 3)


def ranges_hold_the_defaults(kind: type[Backbone], device: Device = CPU) -> None:
    """What `tune` searches starts inside its range, whose ends the settings accept."""
    for name, where in kind.ranges().items():
        default = getattr(kind.Settings(), name)
        assert default in where, f"{name} is {default} by default, outside {where}"
        for end in (where.low, where.high):
            kind.Settings(**{name: end})  # type: ignore[arg-type]


BATTERY: tuple[Callable[..., None], ...] = (
    losses_are_finite_scalars,
    gradients_reach_every_parameter,
    training_finds_what_is_planted,
    one_seed_gives_one_result,
    a_stored_model_ranks_the_same,
    lists_are_those_of_brute_force,
    odd_shapes_are_handled,
    ranges_hold_the_defaults,
)


def _planted(device: Device = CPU) -> tuple[Inputs, ItemSets]:
    """Training inputs with two modalities that tell the groups, and the held-out items."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(GROUPS), USERS)
    own = group[:, None] * ITEMS + np.argsort(rng.random((len(group), ITEMS)), axis=1)
    user = np.arange(len(group))[:, None]
    n_users, n_items = len(group), GROUPS * ITEMS

    def sets(items: np.ndarray[Any, np.dtype[np.int64]]) -> ItemSets:
        users = np.broadcast_to(user, items.shape)
        return ItemSets.from_pairs(users.ravel(), items.ravel(), n_users, n_items)

    generator = torch.Generator().manual_seed(0)
    told = torch.eye(GROUPS).repeat_interleave(ITEMS, dim=0) * 3
    present = torch.arange(n_items) % 7 > 0
    features = {
        "image": ModalityFeatures(
            told + 0.3 * torch.randn(n_items, GROUPS, generator=generator),
            torch.ones(n_items, dtype=torch.bool),
        ),
        "text": ModalityFeatures(
            (told @ torch.randn(GROUPS, 6, generator=generator)) * present[:, None], present
        ),
    }
    inputs = make_inputs(sets(own[:, :SEEN]), features, torch.device(device))
    return inputs, sets(own[:, SEEN:])


def _inputs_of(kind: type[Backbone], device: Device) -> list[Inputs]:
    """The planted inputs, with features where the backbone uses them and without where it can."""
    inputs, _ = _planted(device)
    with_features = [inputs] if kind.uses_features else []
    without = [] if kind.needs_features else [replace(inputs, features={})]
    return with_features + without


def _one_modality(kind: type[Backbone], device: Device) -> list[Inputs]:
    """The planted inputs with the first of their modalities alone, where features are used."""
    inputs, _ = _planted(device)
    name = next(iter(inputs.features))
    one = replace(inputs, features={name: inputs.features[name]})
    return [one] if kind.uses_features else []


def _build(kind: type[Backbone], inputs: Inputs, seed: int = 0, **changes: Any) -> Backbone:
    seed_everything(seed)
    return kind(inputs, _settings(kind, changes)).to(inputs.device)


def _settings(kind: type[Backbone], changes: dict[str, Any]) -> BackboneSettings:
    known = {field.name for field in fields(kind.Settings)}
    quick = {name: value for name, value in (QUICK | changes).items() if name in known}
    return kind.Settings(**quick)


def _loss(model: Backbone, inputs: Inputs, epoch: int = 0) -> dict[str, Tensor]:
    if not model.trained:
        return {}
    model.begin_epoch(torch.Generator().manual_seed(epoch))
    batch: Batch = next(EpochBatches(inputs, 256, model.negatives, 0, epoch).start_at(0))
    return model.loss(batch)


def _train(
    kind: type[Backbone],
    inputs: Inputs,
    score: Callable[[Backbone], float] | None = None,
    **changes: Any,
) -> tuple[Backbone, TrainingState]:
    """A backbone after a training by the real loop: its best epoch by `score`, else the last."""
    model, state = _build(kind, inputs, **changes), TrainingState(epoch=0, step=0)
    if kind.trained:
        epochs = count(1)
        with tempfile.TemporaryDirectory() as folder, WorkFolder(Path(folder) / "run", {}) as work:
            each = score or (lambda _: float(next(epochs)))
            state = fit(model, inputs, _settings(kind, changes), 0, work, each)
    return model.eval(), state


def _recall(inputs: Inputs, model: Backbone) -> float:
    _, held_out = _planted()
    judgement = judge(rank_by_model(model), inputs.seen, held_out, cutoffs=(ITEMS - SEEN,))
    return judgement.metrics[f"recall@{ITEMS - SEEN}"]


def _all_scores(model: Backbone, inputs: Inputs) -> Tensor:
    """The whole table of scores (U, I), on the host: fine here, where it is tiny."""
    users = torch.arange(inputs.n_users, device=inputs.device)
    items = torch.arange(inputs.n_items, device=inputs.device)
    with torch.inference_mode():
        if model.rescores():
            table = model.rescore(users, items)
            pairs = model.rescore(users, items.expand(len(users), -1))
            torch.testing.assert_close(table, pairs, rtol=1e-4, atol=1e-5)
            return table.cpu()
        user, item = (vectors.cpu() for vectors in model.embeddings())
        if model.similarity == "l2":
            return -torch.cdist(user, item).square()
        return functional.linear(user, item)


def _total(row: dict[str, Any]) -> float:
    return float(sum(value for name, value in row.items() if name not in ("epoch", "recall@20")))
