"""Users and items that came after the training: a run that has them too, without a new training.

The backbone is built again with more users or items; all that was learnt is put in place, and
only what belongs to the newcomers is filled in:

- a new user, known by his items, gets his own rows by training these rows alone on the
  backbone's own loss (folding in), with everything else frozen;
- a new item, known by its features, gets rows of 0 where rows belong to items, so that only its
  features and its neighbours speak for it.

`KnownItems` judges a backbone on such items: those without training interactions are kept from it
while it trains, and come in the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from sgfd.dataset import Vocabulary, distinct
from sgfd.featureset import FeatureSet
from sgfd.jobs import JobError, of_kind
from sgfd.recommenders.backbone import Backbone, BackboneSettings, Batch
from sgfd.recommenders.backbones import find_backbone
from sgfd.recommenders.inputs import Inputs, ModalityFeatures, aligned_features, make_inputs
from sgfd.recommenders.item_sets import Indices, ItemSets
from sgfd.recommenders.protocols import SplitSets
from sgfd.recommenders.ranking import vectors_of
from sgfd.recommenders.run_folder import Names, Run

FOLD_IN_STEPS = 100
FOLD_IN_RATE = 3e-2  # step size of Adam


def with_new_user(run: Run, item_ids: Sequence[str], name: str = "(new)") -> Run:
    """The run with one more user, the last, who has interacted with these items.

    Raises:
        JobError: an item is unknown, none is given, or a user of the run is called so.
    """
    if isinstance(item_ids, str):
        raise JobError(f"items {item_ids!r}", "are one text, not several ids", "give a list of ids")
    if name in run.names.users:
        raise JobError(f"new user {name!r}", f"is a user of {run.folder}", "choose another name")
    if not len(item_ids):
        raise JobError("new user", "has no items", "give at least one item id")
    basket = distinct(np.array([run.item_index(item) for item in item_ids]))
    known, nothing = len(run.names.users), np.empty(0, dtype=np.int64)
    split = replace(
        run.split,
        train=_with_user(run.split.train, basket),
        valid=_with_user(run.split.valid, nothing),
        test=_with_user(run.split.test, nothing),
        judged=None if run.split.judged is None else np.append(run.split.judged, False),
    )
    inputs = make_inputs(split.train, run.features, torch.device("cpu"))
    model, grown = _grow(run, inputs)
    if model.trained:
        user = np.full(len(basket), known)
        generator = np.random.default_rng(0)
        negatives = inputs.seen.sample_outside(user, model.negatives, generator)
        _fold_in(
            model,
            grown,
            known,
            Batch(
                torch.from_numpy(user),
                torch.from_numpy(basket),
                torch.from_numpy(negatives),
            ),
        )
    names = replace(run.names, users=np.append(run.names.users, name))
    return _extended(run, model, split, names, run.features)


def with_new_items(run: Run, features: FeatureSet) -> Run:
    """The run with the items of a feature set that it does not have, as the last ones.

    Raises:
        JobError: the backbone does not score items by features, or the feature set is not of
            the making that the backbone was trained on.
    """
    of_kind("features", features, FeatureSet, "give featureset.load(...)")
    used = run.record["features"]
    if not find_backbone(run.record["backbone"]).scores_new_items or used is None:
        how = "has no features here" if used is None else "scores items by id, not by features"
        raise JobError(
            run.folder,
            f"{run.record['backbone']} {how}: it can't score new items",
            "train vbpr, freedom or another that scores by features, on a feature set",
        )
    _refuse_other_features(run, features)
    fresh = np.flatnonzero(Vocabulary(run.names.items).index(features.item_ids) < 0)
    added = aligned_features(
        features,
        fresh,
        used["scale"],
        list(run.features),
        used["factors"],
        used.get("dimension"),
    )
    joined = {
        name: replace(
            old,
            values=torch.cat([old.values, added[name].values]),
            present=torch.cat([old.present, added[name].present]),
        )
        for name, old in run.features.items()
    }
    n_items = len(run.names.items) + len(fresh)
    parts = (run.split.train, run.split.valid, run.split.test)
    train, valid, test = (replace(sets, n_items=n_items) for sets in parts)
    model, _ = _grow(run, make_inputs(train, joined, torch.device("cpu")))
    names = replace(
        run.names,
        items=np.concatenate([run.names.items, features.item_ids[fresh]]),
        titles=np.concatenate([run.names.titles, np.full(len(fresh), None, dtype=object)]),
        labels=np.concatenate([run.names.labels, features.labels[fresh]]),
    )
    split = replace(run.split, train=train, valid=valid, test=test)
    return _extended(run, model, split, names, joined)


class KnownItems:
    """Training on the items that have training interactions; the others come in as new ones.

    Were they there from the start, their own rows would be noise, and as negatives of every user
    they would be trained to be liked by none.

    Attributes:
        inputs: without the items that have no training interaction.
        learner: the backbone on these inputs, to be trained.
    """

    def __init__(self, kind: type[Backbone], inputs: Inputs, settings: BackboneSettings) -> None:
        known = distinct(inputs.seen.items)
        self._places = torch.from_numpy(known).to(inputs.device)
        features = {
            name: replace(f, values=f.values[self._places], present=f.present[self._places])
            for name, f in inputs.features.items()
        }
        self.inputs = make_inputs(inputs.seen.restrict(known), features, inputs.device)
        self.learner = kind(self.inputs, settings).to(inputs.device)
        with torch.random.fork_rng(devices=[]):
            self._model = kind(inputs, settings).to(inputs.device)

    def with_new(self) -> Backbone:
        """The learner as it stands now, with all items."""
        _put_in_place(self._model, self.learner.state_dict(), self._places)
        return self._model.eval()


def _refuse_other_features(run: Run, features: FeatureSet) -> None:
    """New rows mean something only in the space of the old ones: one student must have made both
    sets, or the items that both have must agree.
    """
    used = run.record["features"]
    student = used.get("student_sha256")  # an early run does not say
    if student is not None and student == features.manifest.student_sha256:
        return  # an old item keeps its row, also where what it was made from has changed
    alignment = features.align(run.names.items, min_coverage=0.0)
    shared = np.flatnonzero(alignment.rows >= 0)
    again = aligned_features(
        features,
        alignment.rows[shared],
        used["scale"],
        list(run.features),
        used["factors"],
        used.get("dimension"),
    )
    places, compared = torch.from_numpy(shared), 0
    for name, old in run.features.items():
        both = old.present[places] & again[name].present
        compared += int(both.sum())
        if again[name].dimension != old.dimension or not torch.allclose(
            again[name].values[both], old.values[places][both], atol=1e-4
        ):
            raise JobError(
                features.path,
                f"its {name} features are not those that {run.folder} was trained on",
                f"embed the new items by the student of {used['name']}",
            )
    derived = features.manifest.derived_from
    known = {features.manifest_sha256, derived.manifest_sha256 if derived else ""}
    if not compared and used["manifest_sha256"] not in known:
        raise JobError(
            features.path,
            f"shares no item with {run.folder}, and was not embedded from its feature set",
            f"embed the new items by {used['name']}, which it was trained on",
        )


def _grow(run: Run, inputs: Inputs) -> tuple[Backbone, list[nn.Parameter]]:
    """The run's backbone with more users or items, the last; its parameters that have new rows."""
    kind = type(run.model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.record["seed"])
        model = kind(inputs, run.settings)
    grown = _put_in_place(model, run.model.state_dict())
    return model.eval(), grown


def _put_in_place(
    model: Backbone, learnt: Mapping[str, Tensor], places: Tensor | None = None
) -> list[nn.Parameter]:
    """Give a backbone with more users or items what was learnt; its parameters with new rows.

    A parameter or buffer of the same shape keeps what was learnt. Of a larger parameter the old
    rows do, and the new ones are 0; a larger buffer follows from the inputs and is new.

    Args:
        places: where the old rows of a larger parameter stand; first where None.
    """
    grown = []
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            old = learnt[name]
            if tensor.shape == old.shape:
                tensor.copy_(old)
            elif name in parameters:
                tensor.zero_()
                tensor[slice(len(old)) if places is None else places] = old
                grown.append(parameters[name])
    return grown


def _fold_in(model: Backbone, rows: list[nn.Parameter], known: int, batch: Batch) -> None:
    """Train the rows from number `known` on, and nothing else."""
    with torch.no_grad():
        for parameter in rows:  # from where the others are on average
            parameter[known:] = parameter[:known].mean(dim=0)
    optimizer = torch.optim.Adam(rows, FOLD_IN_RATE)
    model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(FOLD_IN_STEPS):
            optimizer.zero_grad()
            torch.stack(list(model.loss(batch).values())).sum().backward()  # type: ignore[no-untyped-call]
            for parameter in rows:
                if parameter.grad is not None:
                    parameter.grad[:known] = 0
            optimizer.step()
            with torch.no_grad():
                model.after_step()
    model.eval()


def _with_user(sets: ItemSets, items: Indices) -> ItemSets:
    """The sets with one more user, the last, who has these items (ascending)."""
    return ItemSets(
        np.append(sets.offsets, len(sets.items) + len(items)),
        np.concatenate([sets.items, items]),
        sets.n_items,
    )


def _extended(
    run: Run,
    model: Backbone,
    split: SplitSets,
    names: Names,
    features: dict[str, ModalityFeatures],
) -> Run:
    """A run in memory, whose model and features are not the folder's."""
    users, items = vectors_of(model)
    extended = replace(run, user_embeddings=users, item_embeddings=items, split=split, names=names)
    # The places of the cached properties.
    extended.__dict__.update(model=model, features=features)
    return extended
