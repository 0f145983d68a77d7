"""The backbones by name. A new one is one file here and one line in the table below."""

import difflib
from importlib import import_module

from sgfd.jobs import JobError
from sgfd.recommenders.backbone import Backbone

BACKBONES = {
    "bm3": "sgfd.recommenders.backbones.bm3:BM3",
    "bpr": "sgfd.recommenders.backbones.bpr:BPR",
    "popular": "sgfd.recommenders.backbones.popular:MostPopular",
}


def find_backbone(name: str) -> type[Backbone]:
    """The class of the backbone called `name`.

    Raises:
        JobError: there is none of that name; the nearest names are in the message.
    """
    if name not in BACKBONES:
        near = difflib.get_close_matches(name, BACKBONES, cutoff=0.4) or sorted(BACKBONES)
        raise JobError(f"backbone {name!r}", "is unknown", f"choose {' or '.join(near)}")
    module, _, attribute = BACKBONES[name].partition(":")
    backbone: type[Backbone] = getattr(import_module(module), attribute)
    return backbone
