"""Define what a bootstrap resamples: how a metric's headline follows from units that are drawn together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .rows import ScoredRow

Array = NDArray[np.float64]


def score_and_one(unit: Sequence[ScoredRow]) -> tuple[float, ...]:
    """Return the summands of a mean over questions."""
    return sum(row.score for row in unit), float(len(unit))


def mean(sums: Array) -> Array:
    """Convert (..., 2) sums of values and of ones to (...) means."""
    return sums[..., 0] / sums[..., 1]


@dataclass(frozen=True)
class Sampling:
    """Define the headline as a function of sums over units; the default is the mean over questions.

    Attributes:
        unit: returns the id that the rows of a unit share.
        summands: returns those of one unit, (k,).
        ratio: converts (..., k) sums over the units of a stratum to its (...) values.
        stratum: returns the stratum of a unit's rows; None: there is only one.
        combine: combines the strata's values, numpy's mean or sum over axis 0.
    """

    unit: Callable[[ScoredRow], str] = attrgetter("question_id")
    summands: Callable[[Sequence[ScoredRow]], tuple[float, ...]] = score_and_one
    ratio: Callable[[Array], Array] = mean
    stratum: Callable[[ScoredRow], str] | None = None
    combine: Callable[..., Any] = np.mean

    def strata(self, rows: Sequence[ScoredRow]) -> list[Array]:
        """Return (units, k) summands per stratum, with strata and units in the order of their first rows."""
        units: dict[tuple[str, str], list[ScoredRow]] = {}
        for row in rows:
            units.setdefault((self.stratum(row) if self.stratum else "", self.unit(row)), []).append(row)
        strata: dict[str, list[tuple[float, ...]]] = {}
        for (stratum, _), unit in units.items():
            strata.setdefault(stratum, []).append(self.summands(unit))
        return [np.array(summands) for summands in strata.values()]


MEAN_OF_QUESTIONS = Sampling()
