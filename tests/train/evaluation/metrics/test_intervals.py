import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from data_prep.common.errors import DataError
from train.evaluation.metrics.intervals import Z95, average, estimate, headline_interval, retention, wilson_interval
from train.evaluation.metrics.rows import ScoredRow
from train.evaluation.metrics.table import METRICS

counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@given(counts)
def test_wilson_interval_agrees_with_scipy(count):
    successes, n = count
    expected = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(counts)
def test_wilson_bounds_solve_the_score_equation(count):
    successes, n = count
    low, high = wilson_interval(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    for bound in (low, high):
        if 0 < bound < 1:  # |p_hat - p| = z * sqrt(p (1 - p) / n)
            assert abs(successes / n - bound) == pytest.approx(Z95 * math.sqrt(bound * (1 - bound) / n), abs=1e-9)


@pytest.mark.parametrize("count", [(0, 0), (-1, 5), (6, 5)])
def test_wilson_interval_refuses_impossible_counts(count):
    with pytest.raises(ValueError):
        wilson_interval(*count)


# ---- bootstrap


def scored_rows(scores, target="yes"):
    return [ScoredRow(str(index), "", (target,), (), None, None, float(score)) for index, score in enumerate(scores)]


def interval_of(metric, rows, name):
    return headline_interval(metric, rows, estimate(metric, rows, name))


ANLS, EXACT = METRICS["anls"], METRICS["exact_match"]


def test_a_mean_s_interval_agrees_with_scipy_s():
    scores = np.random.default_rng(0).uniform(size=200) ** 2
    low, high = interval_of(ANLS, scored_rows(scores), "docvqa")
    theirs = scipy.stats.bootstrap((scores,), np.mean, n_resamples=10_000, method="percentile", rng=1)
    assert (low, high) == pytest.approx(tuple(theirs.confidence_interval), abs=0.005)


def test_95_of_100_intervals_hold_the_true_mean():
    random, held = np.random.default_rng(3), 0
    for number in range(100):
        rows = scored_rows(random.uniform(size=100) ** 2)  # whose mean is 1/3
        low, high = estimate(ANLS, rows, str(number)).interval()
        held += low <= 1 / 3 <= high
    assert 90 <= held <= 99


def test_a_share_of_right_answers_keeps_wilson_s_interval(row):
    rows = scored_rows([1] * 7 + [0] * 3)
    assert interval_of(EXACT, rows, "gqa") == wilson_interval(7, 10)
    rotated = [row("1", score=1), row("1000001", score=0), row("2", score=1), row("3", score=1)]
    assert interval_of(METRICS["choice"], rotated, "mmbench") == wilson_interval(2, 3)
    assert interval_of(EXACT, scored_rows([0.5, 1, 0]), "vqav2") != wilson_interval(1, 3)


def test_mme_s_interval_is_on_its_own_scale(row):
    rows = [row(f"{image}/{n}", score=0, group="count", image_key=str(image)) for image in range(9) for n in (0, 1)]
    assert interval_of(METRICS["mme"], rows, "mme") == (0, 0)
    rows = [replace(row, score=float(row.image_key < "5")) for row in rows]
    low, high = interval_of(METRICS["mme"], rows, "mme")
    assert 0 < low < 200 * 5 / 9 < high < 200


def test_draws_depend_on_name_and_seed_alone():
    rows = scored_rows(np.random.default_rng(0).uniform(size=50))
    first = estimate(ANLS, rows, "docvqa").draws
    assert np.array_equal(first, estimate(ANLS, rows, "docvqa").draws)
    assert not np.array_equal(first, estimate(ANLS, rows, "textvqa").draws)
    assert not np.array_equal(first, estimate(ANLS, rows, "docvqa", seed=1).draws)


def test_a_model_retains_all_of_itself():
    rows = scored_rows(np.random.default_rng(0).uniform(size=50))
    kept = retention(ANLS, rows, rows[::-1], "docvqa")
    assert kept.value == 1
    assert kept.interval() == (1, 1)


def test_pairing_makes_the_interval_of_a_ratio_narrow():
    full = np.random.default_rng(0).uniform(size=300)
    rows, full_rows = scored_rows(0.9 * full), scored_rows(full)
    kept = retention(ANLS, rows, full_rows, "docvqa")
    assert kept.value == pytest.approx(0.9)
    assert kept.interval() == pytest.approx((0.9, 0.9))
    unpaired = estimate(ANLS, rows, "a").draws / estimate(ANLS, full_rows, "b").draws
    assert np.ptp(np.quantile(unpaired, [0.025, 0.975])) > 0.05


def test_other_questions_are_refused():
    rows = scored_rows([1, 1, 1])
    with pytest.raises(DataError, match="gqa: 3 questions against 2"):
        retention(EXACT, rows, rows[:2], "gqa")
    with pytest.raises(DataError, match="of which 2 have unique ids"):
        retention(EXACT, rows, [*rows[:2], rows[0]], "gqa")
    with pytest.raises(DataError, match="has no answer to question 2"):
        retention(EXACT, rows, [*rows[:2], replace(rows[2], question_id="x")], "gqa")


def test_nothing_is_divided_by_zero():
    with pytest.raises(DataError, match="too few right answers"):
        retention(EXACT, scored_rows([1, 0, 0]), scored_rows([1, 0, 0]), "gqa")


def test_an_average_weighs_benchmarks_alike_and_is_surer_than_each():
    random = np.random.default_rng(0)
    kept = [
        retention(ANLS, scored_rows(random.uniform(size=n)), scored_rows(random.uniform(size=n)), str(n))
        for n in (100, 101, 102, 103)
    ]
    mean = average(kept)
    assert mean.value == pytest.approx(sum(each.value for each in kept) / 4)
    low, high = mean.interval()
    assert low < mean.value < high
    widths = [np.ptp(each.interval()) for each in kept]
    assert high - low == pytest.approx(np.mean(widths) / 2, rel=0.25)  # independent: 1 / sqrt(4)
