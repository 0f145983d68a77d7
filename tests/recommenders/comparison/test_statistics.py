"""Differences and corrections against scipy, statsmodels and planted truths."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sgfd.jobs import JobError
from sgfd.recommenders.comparison.results import Cell, CellResult, ComparedFeatures, Comparison
from sgfd.recommenders.comparison.statistics import (
    check_metrics,
    contrasts,
    holm,
    paired_difference,
    verdict,
)

MIXES = [(0.2, 0.0, 0.1), (0.1, 0.01, 0.1), (0.1, 0.003, 0.3), (0.0, 0.0, 0.3), (0.3, 0.03, 0.0)]


def simulate(rng, n_seeds, n_users, users, seeds, rest, gain=0.0):
    """Differences (S, U) with the standard deviations of users, seeds and what is left."""
    return (
        gain
        + users * rng.standard_normal(n_users)
        + seeds * rng.standard_normal((n_seeds, 1))
        + rest * rng.standard_normal((n_seeds, n_users))
    )


def test_one_seed_is_scipy_s_paired_t_test(rng):
    a, b = rng.random(40), rng.random(40)
    ours = paired_difference((a - b)[None])
    theirs = stats.ttest_rel(a, b)
    interval = theirs.confidence_interval(0.95)
    assert ours.p_value == pytest.approx(theirs.pvalue, rel=1e-10)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=1e-10)


def test_the_mean_squares_are_statsmodels(rng):
    formula = pytest.importorskip("statsmodels.formula.api")
    anova = pytest.importorskip("statsmodels.stats.anova")
    d = simulate(rng, 4, 9, 1.0, 2.0, 0.5)
    seed, user = np.indices(d.shape)
    frame = pd.DataFrame({"d": d.ravel(), "seed": seed.ravel(), "user": user.ravel()})
    table = anova.anova_lm(formula.ols("d ~ C(seed) + C(user)", frame).fit())
    square = table["mean_sq"]
    users, seeds = square["C(user)"], square["C(seed)"]
    total = users + seeds - square["Residual"]
    assert total > max(users, seeds)
    ours = paired_difference(d)
    share = seeds / total
    for p, edge in ((0.05, ours.high - ours.mean), (ours.p_value, abs(ours.mean))):
        critical = (1 - share) * stats.t.isf(p / 2, 8) + share * stats.t.isf(p / 2, 3)
        assert edge == pytest.approx(critical * np.sqrt(total / d.size))


@pytest.mark.parametrize("seeds", [0.0, 1e-9, 1e-4, 0.01])
def test_a_gain_beyond_all_doubt_has_a_p_value(rng, seeds):
    found = [paired_difference(simulate(rng, 5, 5000, 0.01, seeds, 0.01, 0.5)) for _ in range(5)]
    assert all(0 <= each.p_value < 1e-3 and each.low > 0 for each in found)


def test_seeds_alone_that_vary_are_a_t_test_over_seeds():
    d = np.repeat([[0.2], [0.3], [0.25]], 5000, axis=1)
    assert paired_difference(d).p_value == pytest.approx(stats.ttest_1samp(d[:, 0], 0).pvalue)


def test_holm_is_statsmodels_and_a_known_example():
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(0).random(30) ** 3
    np.testing.assert_allclose(holm(p), multitest.multipletests(p, method="holm")[1])
    assert len(holm([])) == 0


@pytest.mark.parametrize("n_seeds", [1, 2, 3, 5])
def test_a_planted_null_is_not_shown_in_95_percent_of_1000_trials(n_seeds):
    """200 of each mix; one seed alone can't tell of the seeds' own variation."""
    rng = np.random.default_rng(n_seeds)
    mixes = MIXES if n_seeds > 1 else [(users, 0.0, rest) for users, _, rest in MIXES]
    found = [
        paired_difference(simulate(rng, n_seeds, 300, *mix)) for mix in mixes for _ in range(200)
    ]
    shown = sum(verdict(each, each.p_value, False) != "not shown" for each in found)
    # One seed is an exact test at 5 %: its 1000 trials may exceed 50 by chance, up to 70 in 99.8 %.
    assert shown <= (50 if n_seeds > 1 else stats.binom.ppf(0.998, len(found), 0.05))


@pytest.mark.parametrize("mix", MIXES[:3])
def test_a_planted_gain_is_better_and_its_mirror_worse(mix):
    rng = np.random.default_rng(0)
    for _ in range(50):
        d = simulate(rng, 5, 300, *mix, gain=0.1)
        difference, mirror = paired_difference(d), paired_difference(-d)
        assert verdict(difference, difference.p_value, True) == "better"
        assert verdict(mirror, mirror.p_value, True) == "worse"
        assert (mirror.low, mirror.high) == pytest.approx((-difference.high, -difference.low))


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(2, 30))
def test_the_order_of_users_and_seeds_does_not_matter(seed, n_seeds, n_users):
    rng = np.random.default_rng(seed)
    d = simulate(rng, n_seeds, n_users, 1.0, 0.5, 0.7)
    one = paired_difference(d)
    shuffled = paired_difference(d[rng.permutation(n_seeds)][:, rng.permutation(n_users)])
    assert (one.low, one.p_value) == pytest.approx((shuffled.low, shuffled.p_value))


def test_nothing_can_be_shown_by_one_user_or_where_nothing_differs():
    assert paired_difference(np.array([[0.5], [0.6]])).p_value == 1
    same = paired_difference(np.zeros((3, 10)))
    assert (same.p_value, same.low, same.high) == (1, 0, 0)


@pytest.mark.parametrize("n_users", range(2, 8))
@pytest.mark.parametrize(("n_seeds", "value"), [(1, 1.0), (3, -0.1)])
def test_users_who_differ_alike_are_a_sign_test(n_seeds, value, n_users):
    """0.1 can't be written in binary: what is left of its mean is rounding."""
    found = paired_difference(np.full((n_seeds, n_users), value))
    assert found.p_value == stats.binomtest(0, n_users).pvalue
    assert np.isfinite(found.low) == np.isfinite(found.high) == (n_users > 5)


@pytest.mark.parametrize("n_users", range(2, 7))
def test_hits_and_misses_of_a_few_users_by_chance_are_rarely_shown(n_users):
    """All that may be drawn where each user's difference is 1 or -1, as likely."""
    drawn = np.array(list(itertools.product([1.0, -1.0], repeat=n_users)))
    found = [paired_difference(d[None]) for d in drawn]
    shown = [verdict(each, each.p_value, False) != "not shown" for each in found]
    assert np.mean(shown) <= 0.05


@pytest.mark.parametrize("n_users", range(2, 12))
def test_hits_and_misses_of_a_few_among_many_users_are_rarely_shown(n_users):
    """The same, where the others have no difference at all."""
    drawn = np.zeros((2**n_users, 500))
    drawn[:, :n_users] = list(itertools.product([1.0, -1.0], repeat=n_users))
    found = [paired_difference(d[None]) for d in drawn]
    shown = [verdict(each, each.p_value, False) != "not shown" for each in found]
    assert np.mean(shown) <= 0.05
    assert found[0].p_value == pytest.approx(stats.binomtest(0, n_users).pvalue)


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(2, 40))
def test_seeds_that_agree_say_no_more_than_one_of_them(seed, n_seeds, n_users):
    d = np.random.default_rng(seed).standard_normal((1, n_users))
    one, same = paired_difference(d), paired_difference(np.repeat(d, n_seeds, axis=0))
    assert (same.low, same.p_value) == pytest.approx((one.low, one.p_value), rel=1e-6)


def test_users_without_a_value_are_left_out(rng):
    d = rng.standard_normal((3, 20))
    holes = np.concatenate([d, np.full((3, 1), np.nan)], axis=1)
    assert paired_difference(holes) == paired_difference(d)


def fake(tmp_path, backbone, features, seed, values, epochs=9):
    run = tmp_path / f"{backbone}-{features}-{seed}"
    run.mkdir()
    users = [f"u{i}" for i in range(len(values))]
    frame = pd.DataFrame({"part": "test", "user_id": users, "recall@20": values})
    other = frame.assign(part="valid", **{"recall@20": 0.0})
    pd.concat([other, frame]).to_parquet(run / "per_user.parquet")
    metrics = {"test": {"recall@20": float(np.mean(values))}}
    return CellResult(Cell("honest", backbone, features, seed), metrics, run, epochs=epochs)


def test_feature_sets_are_held_against_the_baseline(tmp_path, rng):
    base = rng.random((2, 80))
    results = []
    for seed in range(2):
        results.append(fake(tmp_path, "bm3", "none", seed, base[seed]))
        results.append(fake(tmp_path, "bm3", "good", seed, base[seed] + 0.1 + rng.random(80) / 9))
        results.append(fake(tmp_path, "bm3", "twin", seed, base[seed]))
    results.append(CellResult(Cell("honest", "vbpr", "good", 0), {}, error="broken"))
    labels = ("none", "good", "twin")
    comparison = Comparison(
        "d", "f", "c", "m", tuple(ComparedFeatures(n, n, {}, 0, None) for n in labels), "none",
        tuple(results),
    )  # fmt: skip
    good, twin = contrasts(comparison, ["recall@20"])
    assert (good.features, good.verdict, good.difference.n_seeds) == ("good", "better", 2)
    assert good.sentence.startswith("bm3 recommends better on good than on none: recall@20 +0.1")
    assert good.difference.mean == pytest.approx(
        np.mean([r.metrics["test"]["recall@20"] for r in results if r.cell.features == "good"
                 and r.error is None]) - base.mean()
    )  # fmt: skip
    assert twin.verdict == "not shown"
    assert good.corrected_p == pytest.approx(min(1, 2 * good.difference.p_value))
    assert good.to_json()["mean"] == good.difference.mean


@pytest.mark.parametrize(("epochs", "shown"), [(0, "better"), (9, "not shown")])
def test_one_training_shows_nothing_and_one_seed_of_what_is_not_trained_does(
    tmp_path, rng, epochs, shown
):
    base = rng.random(80)
    values = {"none": base, "good": base + 0.1 + rng.random(80) / 9}
    results = tuple(fake(tmp_path, "b", *each, epochs=epochs) for each in _with_seed(values))
    sets = tuple(ComparedFeatures(n, n, {}, 0, None) for n in values)
    (found,) = contrasts(Comparison("d", "f", "c", "m", sets, "none", results), ["recall@20"])
    assert (found.verdict, found.corrected_p < 0.001) == (shown, True)
    assert ("One seed alone shows nothing" in found.sentence) == (epochs > 0)


def _with_seed(values):
    return [(name, 0, each) for name, each in values.items()]


@pytest.mark.parametrize("metric", ["coverage@20", "recall@7", "gini@10", "recall@20 few", "auc"])
def test_what_is_no_figure_of_a_user_is_refused(metric):
    check_metrics(["recall@20 cold", "ndcg@50", "novelty@10", "diversity_image@20", "map@10"])
    with pytest.raises(JobError, match=f"metric '{metric}': is no figure of each user"):
        check_metrics(["recall@20", metric])


def test_cold_items_among_themselves_are_a_family_of_their_own(tmp_path, rng):
    base = rng.random(80)
    results = [fake(tmp_path, "ease", name, 0, base, 0) for name in ("raw", "good")]
    for gain, result in zip((0.0, 0.1), results, strict=True):
        table = pd.read_parquet(result.run / "per_user.parquet")
        cold = table[table["part"] == "test"].assign(part="test_among_cold")
        cold["recall@20"] += gain + rng.random(80) / 90
        pd.concat([table, cold]).to_parquet(result.run / "per_user.parquet")
        result.metrics["test_among_cold"] = {"recall@20": float(cold["recall@20"].mean())}
    sets = tuple(ComparedFeatures(n, n, {}, 0, None) for n in ("raw", "good"))
    comparison = Comparison("d", "f", "c", "m", sets, "raw", tuple(results), split="cold-items")
    warm, cold = contrasts(comparison, ["recall@20"])
    assert (warm.part, warm.verdict) == ("test", "not shown")
    assert (cold.part, cold.verdict) == ("test_among_cold", "better")
    assert cold.sentence.startswith("ease recommends better on good than on raw among cold items")
    assert cold.corrected_p == cold.difference.p_value
