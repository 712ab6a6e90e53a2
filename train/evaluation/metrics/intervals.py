"""Compute intervals of scores: Wilson's for a proportion, and the bootstrap for everything else.

A bootstrap draws units with replacement (questions; images if two questions about one count together; questions with
their rotations), within POPE's splits and MME's categories, scores every draw and takes the 2.5 and 97.5 % quantiles
(Efron, 1979: the percentile interval). Draws depend only on a name and a seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_prep.common.errors import DataError

from .rows import ScoredRow
from .sampling import Array, mean
from .table import Metric

Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile
RESAMPLES = 1000


def wilson_interval(successes: int, n: int) -> tuple[float, float]:
    """Compute Wilson's 95 % score interval of a proportion (E. B. Wilson, 1927), which is valid near 0 and 1 too.

    The bounds are the two p at which |successes/n - p| = z * sqrt(p * (1 - p) / n).

    Raises:
        ValueError: n < 1 or successes outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    p, z = successes / n, Z95
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if successes == 0 else centre - half  # exact: rounding must not move a bound past the proportion
    high = 1.0 if successes == n else centre + half
    return low, high


@dataclass(frozen=True)
class Estimate:
    """Hold a value, and its values in the draws of a bootstrap."""

    value: float
    draws: Array  # (R,)

    def interval(self) -> tuple[float, float]:
        """Return the 95 % percentile interval."""
        low, high = np.quantile(self.draws, [0.025, 0.975])
        return float(low), float(high)


def estimate(metric: Metric, rows: Sequence[ScoredRow], name: str, seed: int = 0) -> Estimate:
    """Compute a metric's headline with its bootstrap.

    Args:
        metric: the metric that scored the rows.
        rows: the rows of all questions, at least one.
        name: name of the benchmark; benchmarks of different names are drawn independently.
        seed: seed of the draws.
    """
    random = np.random.default_rng([seed, *name.encode()])
    sampling = metric.sampling
    values = [sampling.ratio(_drawn(summands, random)) for summands in sampling.strata(rows)]
    return Estimate(metric.value(rows), sampling.combine(values, axis=0))


def _drawn(summands: Array, random: np.random.Generator) -> Array:
    """Convert (units, k) summands to their (R, k) sums in every draw."""
    units = len(summands)
    draws = (random.integers(units, size=units) for _ in range(RESAMPLES))
    return np.stack([np.bincount(draw, minlength=units) @ summands for draw in draws])


def headline_interval(metric: Metric, rows: Sequence[ScoredRow], headline: Estimate) -> tuple[float, float]:
    """Return the headline's 95 % interval: Wilson's if it is the share of correct answers, else the bootstrap's."""
    if metric.sampling.ratio is mean and metric.sampling.stratum is None:
        (summands,) = metric.sampling.strata(rows)
        if np.isin(summands[:, 0], (0, 1)).all():
            return wilson_interval(int(summands[:, 0].sum()), len(summands))
    return headline.interval()


def retention(metric: Metric, rows: Sequence[ScoredRow], full_rows: Sequence[ScoredRow], name: str) -> Estimate:
    """Divide the headline by the full-token model's, with a paired bootstrap: a draw takes the same units of both.

    Args:
        metric, name: as in `estimate`.
        rows: the compressed model's rows.
        full_rows: the full-token model's rows for the same questions, in any order.

    Raises:
        DataError: different questions, a repeated question, or a full-token model that scores 0 in a draw.
    """
    ours = estimate(metric, rows, name)
    full = estimate(metric, _in_order_of(rows, full_rows, name), name)
    if full.draws.min() <= 0:
        raise DataError(f"{name}: the full-token model has too few right answers to divide by")
    return Estimate(ours.value / full.value, ours.draws / full.draws)


def _in_order_of(rows: Sequence[ScoredRow], others: Sequence[ScoredRow], name: str) -> list[ScoredRow]:
    """Sort the other rows in the order of the first."""
    by_id = {row.question_id: row for row in others}
    if not len(by_id) == len(others) == len(rows):
        raise DataError(f"{name}: {len(rows)} questions against {len(others)}, of which {len(by_id)} have unique ids")
    missing = [row.question_id for row in rows if row.question_id not in by_id]
    if missing:
        raise DataError(f"{name}: the full-token model has no answer to question {missing[0]}")
    return [by_id[row.question_id] for row in rows]


def average(estimates: Sequence[Estimate]) -> Estimate:
    """Compute the mean over benchmarks, with equal weights, and the means of their draws."""
    value = sum(each.value for each in estimates) / len(estimates)
    return Estimate(value, np.mean([each.draws for each in estimates], axis=0))
