"""The report's files: figures against numpy, whole CSV, a page that needs nothing else."""

import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from sgfd.recommenders.comparison import contrasts, write_report
from sgfd.recommenders.comparison.report import contrasts_csv

METRICS = ("recall@20", "ndcg@20")
VOID = {"meta", "link", "br", "line", "circle"}


@pytest.fixture(scope="module")
def written(fake_comparison, tmp_path_factory):
    comparison = fake_comparison()
    folder = tmp_path_factory.mktemp("report")
    write_report(comparison, contrasts(comparison, METRICS), folder)
    return comparison, folder


def test_the_figures_are_means_and_deviations_of_the_cells(written):
    comparison, folder = written
    text = (folder / "report.md").read_text()
    for backbone, label in (("backbone0", "none"), ("backbone1", "none"), ("backbone0", "set1")):
        seeds = [r.metrics["test"]["recall@20"] for r in comparison.of("honest", backbone, label)]
        figure = f"{np.mean(seeds):.4f} ± {np.std(seeds, ddof=1):.4f}"
        assert f"| {backbone} | {label} | 2 | {figure} |" in text


def test_a_failed_cell_stands_in_its_place_and_says_why(written):
    _, folder = written
    text = (folder / "report.md").read_text()
    assert "| backbone1 | set1 | failed | - | - |" in text
    assert "backbone1 on set1 (honest, seed 0) failed: it broke" in text
    assert "it broke" in (folder / "report.html").read_text()


@pytest.mark.parametrize("features", [1, 2])
def test_the_words_name_failures_and_whether_anything_was_to_be_compared(
    fake_comparison, tmp_path, features
):
    comparison = fake_comparison(backbones=1, features=features, seeds=1)
    broken = tuple(replace(r, metrics={}, error="it broke") for r in comparison.results)
    write_report(replace(comparison, results=broken), [], tmp_path)
    for name in ("report.md", "report.html"):
        _, _, rest = (tmp_path / name).read_text().partition("In words")
        words, *_ = re.split("## |<h2>", rest)
        assert "backbone0 on none (honest, seed 0) failed: it broke" in words
        assert ("Nothing is held against anything" in words) == (features == 1)


def test_trainings_of_other_numbers_of_threads_are_told_of(written, tmp_path):
    comparison, folder = written
    assert " trainings, " in (folder / "report.md").read_text()  # older runs don't say
    for counts, words in (((1,), "of 1 thread each"), ((1, 2), "of 1 or 2 threads each")):
        results = [
            r if r.error else replace(r, threads=(counts[i % len(counts)],))
            for i, r in enumerate(comparison.results)
        ]
        write_report(replace(comparison, results=tuple(results)), [], tmp_path)
        for name in ("report.md", "report.html"):
            assert f" trainings {words}, " in (tmp_path / name).read_text()


def test_a_device_is_named_where_it_is_a_gpu_and_none_where_nothing_was_trained(written, tmp_path):
    comparison, _ = written

    def begins(results):
        write_report(replace(comparison, results=tuple(results)), [], tmp_path)
        return (tmp_path / "report.md").read_text().splitlines()[2]

    done = [r for r in comparison.results if r.error is None]
    failed = [r for r in comparison.results if r.error is not None]
    assert begins(failed).startswith(f"0 trainings, {len(failed)} failed; ")
    assert begins(done).startswith(f"{len(done)} trainings, 0 failed; ")
    mixed = [replace(done[0], device="cuda"), *done[1:]]
    assert begins(mixed).startswith(f"{len(done)} trainings on cpu or cuda, 0 failed; ")


def test_a_bar_in_a_name_does_not_break_a_table(written):
    rows = [
        re.findall(r"(?<!\\)\|", line)
        for line in (written[1] / "report.md").read_text().splitlines()
        if line.startswith("| backbone0")
    ]
    assert {len(bars) for bars in rows} <= {9, 10}


def test_the_csv_files_hold_every_cell_and_contrast(written):
    comparison, folder = written
    cells = pd.read_csv(folder / "cells.csv")
    assert len(cells) == len(comparison.results)
    assert cells["error"].notna().sum() == len(comparison.failed())
    one = comparison.of("honest", "backbone0", "set1")[1]
    row = cells.query("protocol == 'honest' and backbone == 'backbone0' and features == 'set1'")
    assert row["test recall@20"].tolist()[1] == one.metrics["test"]["recall@20"]
    table = pd.read_csv(io.StringIO((folder / "contrasts.csv").read_text()))
    expected = contrasts(comparison, METRICS)
    assert table["mean"].tolist() == [contrast.difference.mean for contrast in expected]
    assert table["sentence"].tolist() == [contrast.sentence for contrast in expected]
    assert table.columns.tolist() == list(expected[0].to_json())
    assert contrasts_csv([]).split() == [",".join(table.columns)]


class Reader(HTMLParser):
    """Checks that tags are closed, and collects what a browser would fetch."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.heads = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.fetched += [v for k, v in attributes if k in ("src", "href") and v[0] != "#"]
        if re.fullmatch("h[1-6]", tag):
            self.heads.append(int(tag[1]))

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_file_well_formed_and_escaped(written):
    text = (written[1] / "report.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert reader.fetched == []
    assert "url(" not in text
    assert "<b>" not in text
    assert reader.heads[0] == 1 and all(
        b - a <= 1 for a, b in zip(reader.heads, reader.heads[1:], strict=False)
    )


def test_a_large_comparison_is_a_small_page(fake_comparison, tmp_path):
    comparison = fake_comparison(14, 6, 5, protocols=("honest",))
    write_report(comparison, contrasts(comparison, METRICS), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


@pytest.fixture
def grouped(fake_comparison):
    """A comparison whose finished cells hold group metrics, one of them without coverage."""
    comparison = fake_comparison()
    extra = {"recall@20 cold": 0.01, "recall@20 few": 0.02, "gini@20": 0.7, "coverage@20": 0.5}
    first = next(result for result in comparison.results if result.error is None)
    results = []
    for result in comparison.results:
        if result.error is None:
            own = {k: v for k, v in extra.items() if result is not first or k != "coverage@20"}
            test = {**result.metrics["test"], **own}
            result = replace(result, metrics={**result.metrics, "test": test})
        results.append(result)
    return replace(comparison, results=tuple(results))


def test_tables_by_group_and_beyond_accuracy_hold_what_was_measured(grouped, tmp_path, written):
    write_report(grouped, [], tmp_path)
    text, plain = ((f / "report.md").read_text() for f in (tmp_path, written[1]))
    html = (tmp_path / "report.html").read_text()
    for heading in ("By group of items", "By group of users", "Beyond accuracy"):
        assert f"## {heading}" in text and f"<h2>{heading}</h2>" in html
        assert heading not in plain
    assert "| backbone | features | recall@20 cold |" in text  # rare and popular are absent
    assert "| backbone0 | none | 0.0100 ± 0.0000 |" in text
    assert "| backbone1 | set1 | failed |" in text


def test_refits_have_a_table_of_each_part(fake_comparison, tmp_path):
    comparison = fake_comparison(backbones=1, seeds=1, protocols=("honest",))
    figures = {"test": {"recall@20": 0.125}, "test_among_cold": {"recall@20": 0.875}}
    refits = [replace(r, refit=figures, metrics=figures) for r in comparison.results]
    write_report(replace(comparison, results=tuple(refits)), [], tmp_path)
    for name, heading in (("report.md", "## Refit"), ("report.html", "<h2>Refit")):
        _, _, refit = (tmp_path / name).read_text().partition(heading)
        first, _, second = refit.partition("Refit, test_among_cold: the same items among cold ones")
        assert "Refit, test: cold items among all items" in first
        assert "0.1250" in first and "0.8750" not in first and "0.8750" in second
    cells = pd.read_csv(tmp_path / "cells.csv")
    assert set(cells["refit test_among_cold recall@20"]) == {0.875}


def test_a_cell_without_a_metric_did_not_fail(grouped, tmp_path):
    only = replace(grouped, results=grouped.results[:2])
    write_report(only, [], tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| backbone0 | none | - | 0.7000 |" in text
    assert "failed</td>" not in (tmp_path / "report.html").read_text()


def test_a_failed_training_cost_nothing_known(written):
    costs = (written[1] / "report.html").read_text().split("<h2>Cost</h2>")[1]
    assert '<td>set1</td><td class="n" data-v="-Infinity">failed</td>' in costs


def test_markdown_holds_no_html_of_a_name(written):
    text = (written[1] / "report.md").read_text()
    assert "<b>" not in text
    assert "&lt;b&gt;" in text


def test_the_first_sentences_are_those_of_the_honest_protocol(written):
    _, folder = written
    words = (folder / "report.md").read_text().split("## In words")[1].split("##")[0]
    assert "backbone0" in words
    assert "by the paper's protocol" not in words


def test_an_unbounded_interval_and_a_tiny_p_are_in_words(written, tmp_path):
    comparison, _ = written
    one = contrasts(comparison, METRICS)[0]
    endless = replace(one.difference, low=-math.inf, high=math.inf)
    unbounded = replace(one, difference=endless)
    write_report(comparison, [unbounded, replace(one, corrected_p=1e-9)], tmp_path)
    for name in ("report.md", "report.html"):
        text = (tmp_path / name).read_text()
        assert "unbounded" in text
        assert "< 0.001" in text.replace("&lt;", "<")
        assert "+inf" not in text


@pytest.mark.parametrize("part", ["test", "test_among_cold"])
def test_what_another_metric_shows_is_said_beside(written, tmp_path, part):
    """A set may find as many items, and put them lower."""
    comparison, _ = written
    first = contrasts(comparison, METRICS)[0]
    even = replace(first, metric="recall@20", corrected_p=0.5)
    lower = replace(first.difference, mean=-0.05)
    worse = replace(first, metric="ndcg@20", part=part, difference=lower, corrected_p=1e-9)
    write_report(comparison, [even, worse], tmp_path)
    for name in ("report.md", "report.html"):
        _, _, text = (tmp_path / name).read_text().replace("&lt;", "<").partition("In words")
        assert ("By ndcg@20 it is worse: -0.0500, p < 0.001." in text) == (part == "test")
    write_report(comparison, [even, replace(worse, corrected_p=0.5)], tmp_path)
    assert "By ndcg@20" not in (tmp_path / "report.md").read_text()


def test_a_plot_names_every_baseline(written, tmp_path):
    comparison, _ = written
    found = [c for c in contrasts(comparison, METRICS) if c.metric == "recall@20"]
    write_report(comparison, [found[0], replace(found[1], baseline="raw")], tmp_path)
    assert "difference from none or raw" in (tmp_path / "report.html").read_text()
