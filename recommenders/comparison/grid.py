"""The grid of a comparison: backbones on feature sets, by protocol and seed."""

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sgfd.dataset import Dataset, Protocol, Split
from sgfd.featureset import MIN_COVERAGE, FeatureSet
from sgfd.jobs import JobError, usable_cores, usable_memory
from sgfd.recommenders.backbone import BackboneSettings
from sgfd.recommenders.backbones import find_backbone
from sgfd.recommenders.comparison.results import (
    NO_FEATURES,
    Cell,
    CellResult,
    ComparedFeatures,
    Comparison,
    Unanswered,
)
from sgfd.recommenders.comparison.tuned import Pair
from sgfd.recommenders.preparation import settings_of
from sgfd.recommenders.protocols import SplitSets, split_interactions, users_to_judge
from sgfd.recommenders.provenance import what_features_saw

FORMAT = 1


@dataclass(frozen=True)
class Grid:
    """What is compared; refused where there is nothing to train on or to compare, and where a
    feature set may know what the split holds out.

    Attributes:
        dataset: the data set. reference: how it is found again, by name or folder.
        features: opened feature sets by label; None is the training without.
        settings: of each backbone, by name.
        options: further arguments of `train`, the same for every cell; `split` and `judge_users`
            are left out where all is judged on the data set's own parts.
        tune: trials of each backbone on each feature set, 0 to take the settings as they are.
        fixed: names of settings, by backbone, that are not tuned.
        refit: whether every cell of protocol `honest` is also trained on train and valid.
    """

    dataset: Dataset
    reference: str
    data_root: Path | None
    features: dict[str, FeatureSet | None]
    settings: dict[str, BackboneSettings]
    seeds: int
    protocols: tuple[Protocol, ...]
    options: dict[str, Any]
    tune: int = 0
    fixed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    refit: bool = False

    def __post_init__(self) -> None:
        for name, settings in self.settings.items():
            settings_of(find_backbone(name), settings)
        where = f"dataset {self.dataset.name}"
        if self.dataset.interactions is None:
            raise JobError(where, "has no interactions", "add some: stage two trains on them")
        if not self.cells():
            why = [f"{each.what} {each.why}" for each in self.unanswered()]
            for backbone in self.settings:
                if not any(self._makes_sense(backbone, label) for label in self.features):
                    needs = find_backbone(backbone).needs_features
                    why.append(f"{backbone} {'needs' if needs else 'takes no'} features")
            said = "; ".join(["there is nothing to compare", *why])
            raise JobError(where, said, "name other backbones or features")
        if self.refit and "honest" not in self.protocols:
            raise JobError(
                "--refit",
                "goes with protocol honest alone: the paper's trains on valid anyway",
                "leave --refit out, or add honest to --protocols",
            )
        self._refuse_unfit()
        guided = [f for f in self.features.values() if f and f.manifest.is_guided]
        if guided:
            self._refuse_leaks(guided)

    def _refuse_unfit(self) -> None:
        """Refuse features that no cell could train on, before any cell is run."""
        assert self.dataset.interactions is not None
        for features in filter(None, self.features.values()):
            features.align(
                self.dataset.interactions.items.ids, self.options.get("min_coverage", MIN_COVERAGE)
            )
            if (dimension := self.options.get("dimension")) is not None:
                for name in features.manifest.usual_modalities:
                    features.check_width(name, dimension)

    def _refuse_leaks(self, guided: Sequence[FeatureSet]) -> None:
        assert self.dataset.interactions is not None
        trust = self.options.get("trust_features", False)
        for protocol in self.protocols:
            sets = self.sets(protocol)
            for features in guided:
                what_features_saw(features, self.dataset.interactions, sets, trust)

    def sets(self, protocol: Protocol) -> SplitSets:
        """What trains, what chooses the model and what judges it, by one of the protocols.

        Raises:
            JobError, DatasetError: the interactions can't be split so; a user to judge is unknown.
        """
        interactions, named = self.dataset.interactions, self.options.get("judge_users")
        assert interactions is not None
        judged = None if named is None else users_to_judge(named, interactions)
        seed = self.options.get("split_seed", 0)
        return split_interactions(interactions, protocol, seed, self.split, judged)

    @cached_property
    def fingerprint(self) -> str:
        """Of the interactions; every cell asks for it."""
        assert self.dataset.interactions is not None
        return self.dataset.interactions.fingerprint()

    @cached_property
    def parts(self) -> dict[str, str]:
        """Fingerprints of the parts by protocol, as a run records them: where the data set's own
        are divided anew, timestamps have a say, which `fingerprint` leaves out.
        """
        if self.split == "given":
            return {}
        return {protocol: self.sets(protocol).fingerprint() for protocol in self.protocols}

    @property
    def split(self) -> Split:
        split: Split = self.options.get("split", "given")
        return split

    def cells(self) -> list[Cell]:
        """Every cell that makes sense, a seed after the other: a first answer comes early.

        A backbone that takes no features is trained without, if at all; one that needs them only
        with some.
        """
        return [
            Cell(protocol, backbone, label, seed)
            for seed in range(self.seeds)
            for protocol in self.protocols
            for backbone in self.settings
            for label in self.features
            if self._makes_sense(backbone, label) and self._answers(backbone, label)
        ]

    def unanswered(self) -> tuple[Unanswered, ...]:
        """What has no cell under the split, though it would have one on the data set's own parts.

        Under `cold-items` a backbone that scores items by id, and any without features.
        """
        found = []
        for backbone in self.settings:
            if not find_backbone(backbone).scores_new_items:
                if self.split == "cold-items":
                    found.append(Unanswered(backbone, "scores items by id: can't answer"))
                continue
            for label in self.features:
                if self._makes_sense(backbone, label) and not self._answers(backbone, label):
                    what = f"{backbone} without features"
                    found.append(Unanswered(what, "scores new items by features: can't answer"))
        return tuple(found)

    def tuned_pairs(self) -> list[Pair]:
        """Backbones on features whose settings are searched; not those with nothing to search."""
        pairs = dict.fromkeys((cell.backbone, cell.features) for cell in self.cells())
        return [pair for pair in pairs if self.tune and self._searches(*pair)]

    def _searches(self, backbone: str, label: str) -> bool:
        ranges, fixed = find_backbone(backbone).ranges(), self.fixed.get(backbone, ())
        return any(
            name not in fixed and (label != NO_FEATURES or not where.features)
            for name, where in ranges.items()
        )

    def _makes_sense(self, backbone: str, label: str) -> bool:
        kind = find_backbone(backbone)
        return not kind.needs_features if label == NO_FEATURES else kind.uses_features

    def _answers(self, backbone: str, label: str) -> bool:
        by_features = find_backbone(backbone).scores_new_items and label != NO_FEATURES
        return self.split != "cold-items" or by_features

    def identity(self) -> dict[str, Any]:
        """What a half-done comparison must still be about."""
        options = dict(self.options)
        if "judge_users" in options:
            ids = sorted(set(options["judge_users"]))
            digest = hashlib.sha256("\0".join(ids).encode()).hexdigest()
            options["judge_users"] = {"count": len(ids), "sha256": digest}
        return {
            "format": FORMAT,
            "dataset": self.fingerprint,
            "catalogue": self._catalogue(),
            "parts": self.parts,
            "options": options
            | ({"tune": self.tune} if self.tune else {})
            | ({"refit": True} if self.refit else {}),
            "features": {
                label: features.manifest_sha256 if features else None
                for label, features in self.features.items()
            },
            "settings": {
                name: asdict(settings)
                | ({"fixed": sorted({*self.fixed.get(name, ())})} if self.tune else {})
                for name, settings in self.settings.items()
            },
        }

    def _catalogue(self) -> str | None:
        """sha256 of generic features and labels, by which lists are judged beyond accuracy."""
        catalog = self.dataset.catalog
        if catalog is None:
            return None
        both = f"{catalog.fingerprint()} {catalog.labels_fingerprint()}"
        return hashlib.sha256(both.encode()).hexdigest()


def protocols_of(names: Sequence[str]) -> tuple[Protocol, ...]:
    """Protocols by name.

    Raises:
        JobError: one is unknown, or there is none.
    """
    known: dict[str, Protocol] = {"honest": "honest", "paper": "paper"}
    for name in names or ("",):
        if name not in known:
            raise JobError(f"--protocols {name}", "is unknown", f"choose {' or '.join(known)}")
    return tuple(known[name] for name in dict.fromkeys(names))


def label_features(opened: Sequence[FeatureSet | None]) -> dict[str, FeatureSet | None]:
    """Feature sets by their names, of a version with the version, which must differ.

    Raises:
        JobError: two have one name.
    """
    labelled: dict[str, FeatureSet | None] = {}
    for features in opened:
        label = features.label if features else NO_FEATURES
        if features and label == NO_FEATURES:
            raise JobError(
                features.path,
                f"is called {NO_FEATURES}, which means without features",
                "make it again with another --name",
            )
        if label in labelled:
            raise _same_name(label, labelled[label], features)
        labelled[label] = features
    return labelled


def _same_name(label: str, one: FeatureSet | None, other: FeatureSet | None) -> JobError:
    if one and other and one.path.resolve() != other.path.resolve():
        return JobError(
            f"--features {one.path},{other.path}",
            f"are two folders of one name, {label}",
            f"give one another: pipeline features publish {other.path} --name NAME",
        )
    return JobError(
        f"--features {label}", "is there twice", "give each feature set once, by its name"
    )


def baseline_of(grid: Grid, wanted: str | None) -> str:
    """The features that the others are held against: none where that is compared, else the first.

    Raises:
        JobError: `wanted` is not among the grid's features.
    """
    labels = list(grid.features)
    chosen = wanted or (NO_FEATURES if NO_FEATURES in labels else labels[0])
    if chosen not in labels:
        raise JobError(f"--baseline {chosen}", "is not compared", f"choose {' or '.join(labels)}")
    return chosen


def compared(grid: Grid, results: Sequence[CellResult], command: str, baseline: str) -> Comparison:
    """The results with what the report says about them."""
    named = grid.options.get("judge_users")
    judged = None if named is None else grid.sets(grid.protocols[0]).to_judge("test").sizes > 0
    return Comparison(
        dataset=grid.dataset.name,
        fingerprint=grid.fingerprint,
        command=command,
        machine=machine(),
        features=tuple(
            _described(label, features, grid.options.get("dimension"))
            for label, features in grid.features.items()
        ),
        baseline=baseline,
        results=tuple(results),
        split=grid.split,
        judged_users=None if judged is None else int(judged.sum()),
        named_users=None if named is None else len(set(named)),
        unanswered=grid.unanswered(),
    )


def machine() -> str:
    """Processor, cores, memory and what computes, in words."""
    cores, memory = usable_cores(), usable_memory() / 2**30
    programs = ", ".join(f"{name} {version(name)}" for name in ("sgfd", "torch"))
    return f"{platform.machine()}, {cores} cores, {memory:.0f} GiB, {platform.system()}; {programs}"


def _described(label: str, features: FeatureSet | None, dimension: int | None) -> ComparedFeatures:
    """What is trained on: where that is leading columns alone, so many and their share of bytes."""
    if features is None:
        return ComparedFeatures(label, NO_FEATURES, {}, 0, None)
    manifest = features.manifest
    used = [m for m in manifest.modalities if m.name in manifest.usual_modalities]
    widths = {modality.name: dimension or modality.dimension for modality in used}
    narrowed = any(widths[modality.name] < modality.dimension for modality in used)
    return ComparedFeatures(
        label,
        manifest.method + (f", the first {dimension} columns" if narrowed else ""),
        widths,
        sum(manifest.files[m.file].bytes * widths[m.name] // m.dimension for m in used),
        features.manifest_sha256,
    )
