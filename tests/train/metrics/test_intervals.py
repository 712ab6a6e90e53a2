import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from train.metrics import Z95, wilson_interval

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
