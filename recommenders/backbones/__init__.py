"""The backbones by name. A new one is one file here and one line in the table below.

Other packages add theirs by an entry point of the group `sgfd.backbones`:

    [project.entry-points."sgfd.backbones"]
    mine = "my_package.mine:Mine"
"""

import difflib
import logging
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from sgfd.jobs import JobError
from sgfd.recommenders.backbone import Backbone

logger = logging.getLogger("sgfd")

GROUP = "sgfd.backbones"

BACKBONES = {
    "bm3": "sgfd.recommenders.backbones.bm3:BM3",
    "bpr": "sgfd.recommenders.backbones.bpr:BPR",
    "cml": "sgfd.recommenders.backbones.cml:CML",
    "content": "sgfd.recommenders.backbones.content:ContentNeighbours",
    "dgcf": "sgfd.recommenders.backbones.dgcf:DGCF",
    "ease": "sgfd.recommenders.backbones.ease:EASE",
    "freedom": "sgfd.recommenders.backbones.freedom:FREEDOM",
    "graphfilter": "sgfd.recommenders.backbones.graphfilter:GraphFilter",
    "grcn": "sgfd.recommenders.backbones.grcn:GRCN",
    "lightgcn": "sgfd.recommenders.backbones.lightgcn:LightGCN",
    "maml": "sgfd.recommenders.backbones.maml:MAML",
    "mgcn": "sgfd.recommenders.backbones.mgcn:MGCN",
    "neumf": "sgfd.recommenders.backbones.neumf:NeuMF",
    "ngcf": "sgfd.recommenders.backbones.ngcf:NGCF",
    "popular": "sgfd.recommenders.backbones.popular:MostPopular",
    "vbpr": "sgfd.recommenders.backbones.vbpr:VBPR",
}


@cache
def backbone_places() -> dict[str, str]:
    """`module:class` of every backbone by name: ours, and those that other packages add."""
    added = {point.name: point.value for point in entry_points(group=GROUP)}
    for name in sorted(added.keys() & BACKBONES.keys()):
        logger.warning(
            "the backbone %s of %s is left out: one of ours has that name", name, added[name]
        )
    return dict(sorted((added | BACKBONES).items()))


def find_backbone(name: str) -> type[Backbone]:
    """The class of the backbone called `name`.

    Raises:
        JobError: there is none of that name (the nearest names are in the message), or the
            package that brings it can't be imported.
    """
    place = _nearest(name, backbone_places(), "backbone")
    module, _, attribute = place.partition(":")
    try:
        backbone = getattr(import_module(module), attribute)
    except Exception as error:  # another package's code: anything may come
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise JobError(
            f"backbone {name}", f"can't be imported from {place} ({said})", "mend its package"
        ) from None
    if not (isinstance(backbone, type) and issubclass(backbone, Backbone)):
        raise JobError(f"backbone {name}", f"{place} is no Backbone", "subclass sgfd's Backbone")
    if "__pydantic_validator__" not in vars(backbone.Settings):
        raise JobError(
            f"backbone {name}",
            f"nothing checks its {backbone.Settings.__name__}",
            "make it a pydantic dataclass: @dataclass(frozen=True, config=CHECKED)",
        )
    return backbone


def usable_backbones() -> dict[str, type[Backbone]]:
    """Every backbone by name but those whose packages are broken, of which the log tells."""
    found = {}
    for name in backbone_places():
        try:
            found[name] = find_backbone(name)
        except JobError as error:
            logger.warning("%s", error)
    return found


def find_preset(kind: type[Backbone], name: str) -> dict[str, Any]:
    """The authors' settings of a backbone for one of their data sets.

    Raises:
        JobError: it has none of that name.
    """
    preset: dict[str, Any] = _nearest(name, kind.PRESETS, f"preset of {kind.__name__}")
    return preset


def _nearest(name: str, known: dict[str, Any], what: str) -> Any:
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, cutoff=0.5) or sorted(known)
        choice = f"choose {' or '.join(near)}" if near else "it has none: leave it out"
        raise JobError(f"{what} {name!r}", "is unknown", choice)
    return known[name]
