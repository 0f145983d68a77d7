"""Every backbone passes the common battery."""

import pytest

from sgfd.recommenders import Range, backbone_places, find_backbone
from sgfd.recommenders.battery import (
    BATTERY,
    gradients_reach_every_parameter,
    losses_are_finite_scalars,
    ranges_hold_the_defaults,
    training_finds_what_is_planted,
)

# Most popular is no personal model: that it misses what is planted shows that the check can fail.
FLOOR = ("popular", training_finds_what_is_planted)


@pytest.mark.parametrize("check", BATTERY, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", backbone_places())
def test_every_backbone_passes(name, check):
    if (name, check) == FLOOR:
        with pytest.raises(AssertionError, match="recall@4 is 0"):
            check(find_backbone(name))
    else:
        check(find_backbone(name))


def test_a_broken_backbone_is_found_out():
    kind = find_backbone("bpr")

    class Idle(kind):
        """Its users are never trained."""

        def loss(self, batch):
            parts = super().loss(batch)
            self.users.weight.requires_grad_(False)
            return parts

    class Vector(kind):
        def loss(self, batch):
            return {"ranking": self.users(batch.users).sum(dim=1)}

    class Wrong(kind):
        """The right sign is the wrong one."""

        def embeddings(self):
            users, items = super().embeddings()
            return users, -items

    class Outside(kind):
        @classmethod
        def ranges(cls):
            return {"learning_rate": Range(1.0, 2.0)}

    with pytest.raises(AssertionError, match="outside 1 to 2"):
        ranges_hold_the_defaults(Outside)
    with pytest.raises(AssertionError, match="no scalar"):
        losses_are_finite_scalars(Vector)
    with pytest.raises(AssertionError, match="no gradient reaches"):
        gradients_reach_every_parameter(Idle)
    with pytest.raises(AssertionError, match="recall@4"):
        training_finds_what_is_planted(Wrong)
