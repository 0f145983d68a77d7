"""Which feature sets there are in a folder, and which came from which."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgfd.featureset.errors import FeatureSetError
from sgfd.featureset.manifest import MANIFEST, Manifest
from sgfd.featureset.reading import FeatureSet, load
from sgfd.featureset.versions import read_latest, version_of, versioned


@dataclass(frozen=True)
class Entry:
    """A feature set in a folder of sets, or at another place.

    Attributes:
        where: its folder or URL.
        name: of its folder, without the version.
        published: whether it is a version that never changes; else a set at work.
        latest: whether it is the latest version of its name.
    """

    where: str
    name: str
    published: bool
    latest: bool
    manifest: Manifest
    manifest_sha256: str

    @property
    def version(self) -> str:
        """Of what it holds."""
        return version_of(self.manifest_sha256)

    @property
    def label(self) -> str:
        """The name of its folder."""
        return versioned(self.name, self.manifest_sha256) if self.published else self.name

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "published": self.published,
            "latest": self.latest,
            "manifest_sha256": self.manifest_sha256,
            "created": self.manifest.created,
            "method": self.manifest.method,
            "dataset": self.manifest.dataset.name,
            "items": self.manifest.dataset.n_items,
            "path": self.where,
        }


def inventory(root: Path) -> tuple[list[Entry], list[str]]:
    """The sets in a folder, by name and by the time they were made, and what is wrong with others.

    Raises:
        FeatureSetError: the folder can't be read.
    """
    entries, problems = [], []
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        try:
            if not path.name.startswith(".") and (path / MANIFEST).is_file():
                entries.append(_entry(load(path)))
        except FeatureSetError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{path}: can't be read ({error.strerror}); allow it")
    return in_order(entries), problems


def in_order(entries: list[Entry]) -> list[Entry]:
    """By name, then by the time they were made."""
    return sorted(entries, key=lambda each: (each.name, each.manifest.created))


def _entry(opened: FeatureSet) -> Entry:
    digest = opened.manifest_sha256
    name = opened.path.name.partition("@")[0]
    published = opened.path.name == versioned(name, digest)
    latest = published and read_latest(opened.path.parent, name) == digest
    return Entry(str(opened.path), name, published, latest, opened.manifest, digest)


def lineage(opened: FeatureSet, root: Path) -> dict[str, Any]:
    """Where a set comes from, step by step, and which sets of a folder come from it.

    Returns:
        `set`: what it is itself. `derived_from`: the same of the set whose student made rows of
        it, with `kept` and `added`, and what that one is `derived_from` in turn; None where stage
        one made it. `path` is None of a set that is not in the folder. `derived`: names of the
        sets in the folder that were made from it, or from such a set.
    """
    entries, _ = inventory(root)
    known = {each.manifest_sha256: each for each in entries}
    made: list[Entry] = []
    sources, found = {opened.manifest_sha256}, {opened.manifest_sha256}
    while found:  # of a set there may be several copies: a version, and the one at work
        of_them = [each for each in entries if _made_from(each) in found]
        made += of_them
        found = {each.manifest_sha256 for each in of_them} - sources
        sources |= found
    return {
        "set": _described(opened),
        "derived_from": _origin(opened.manifest, known),
        "derived": sorted({each.label for each in made}),
    }


def _made_from(entry: Entry) -> str | None:
    origin = entry.manifest.derived_from
    return origin.manifest_sha256 if origin is not None else None


def _described(opened: FeatureSet) -> dict[str, Any]:
    manifest = opened.manifest
    stated = manifest.model_dump(mode="json", include={"created", "producer", "method", "seed"})
    return {
        "name": opened.path.name.partition("@")[0],
        "version": version_of(opened.manifest_sha256),
        "manifest_sha256": opened.manifest_sha256,
        **stated,
        "dataset": manifest.dataset.model_dump(mode="json"),
        "interactions": manifest.interactions and manifest.interactions.model_dump(mode="json"),
    }


def _origin(manifest: Manifest, known: dict[str, Entry]) -> dict[str, Any] | None:
    derived = manifest.derived_from
    if derived is None:
        return None
    found = known.get(derived.manifest_sha256)
    return {
        "name": derived.name,
        "version": version_of(derived.manifest_sha256),
        "manifest_sha256": derived.manifest_sha256,
        "kept": derived.kept,
        "added": derived.added,
        "catalogue": derived.catalogue.name,
        "path": found.where if found else None,
        "derived_from": _origin(found.manifest, known) if found else None,
    }
