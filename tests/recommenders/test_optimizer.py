"""The training loop's Adam against torch's own."""

import torch
from torch import nn

from sgfd.jobs import pack, unpack
from sgfd.recommenders.optimizer import Adam


class Pair(nn.Module):
    """Two tables, of which the second may take no part."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.used = nn.Parameter(torch.randn(7, 5, generator=generator))
        self.sometimes = nn.Parameter(torch.randn(5, generator=generator))

    def step(self, optimizer, number):
        optimizer.zero_grad()
        weights = self.used * (1 + number)
        (weights @ self.sometimes if number % 3 else weights).square().sum().backward()
        optimizer.step()


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_its_steps_are_those_of_torchs_fused_adam_to_the_last_bit():
    ours, theirs = Pair(), Pair()
    optimizer = Adam(ours.parameters(), 0.05)
    oracle = torch.optim.Adam(theirs.parameters(), 0.05, fused=True)
    for number in range(10):
        ours.step(optimizer, number)
        theirs.step(oracle, number)
        assert equal(ours, theirs)
    assert not equal(ours, Pair())


def test_its_state_goes_through_a_checkpoint():
    model, again = Pair(), Pair()
    optimizer, loaded = Adam(model.parameters(), 0.05), Adam(again.parameters(), 0.05)
    for number in range(4):
        model.step(optimizer, number)
    unpack(pack(model, optimizer), again, loaded)
    assert equal(model, again)
    model.step(optimizer, 5)
    again.step(loaded, 5)
    assert equal(model, again)
