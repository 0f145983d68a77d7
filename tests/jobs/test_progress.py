"""How far long work is, where standard error is no terminal."""

import logging
import sys

from sgfd.jobs import progress

MODULE = sys.modules["sgfd.jobs.progress"]  # the package's own `progress` is the function


def lines_of(caplog, every, monkeypatch):
    monkeypatch.setattr(MODULE, "LINE_EVERY", every)
    monkeypatch.setattr(MODULE, "_hidden", False)
    with caplog.at_level(logging.INFO, "sgfd"), progress(3, "training") as advance:
        advance(1)
        advance(2, best="0.1200", epoch=2)
    return [record.getMessage() for record in caplog.records]


def test_a_line_says_how_far_it_is(caplog, monkeypatch):
    lines = lines_of(caplog, 0.0, monkeypatch)
    assert [line.split() for line in lines] == [
        ["training", "1", "of", "3"],
        ["training", "3", "of", "3", "best", "0.1200", "epoch", "2"],
    ]


def test_short_work_says_nothing(caplog, monkeypatch):
    assert lines_of(caplog, 60.0, monkeypatch) == []


def test_closed_standard_error_stops_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    monkeypatch.setattr(MODULE, "_hidden", False)
    with progress(3, "training") as advance:
        advance(3)
