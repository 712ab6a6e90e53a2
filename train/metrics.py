"""Numbers of an evaluation: exact match, its 95 % interval, accuracies by group."""

import math
import re
from collections.abc import Iterable, Sequence

Z95 = 1.959963984540054  # the normal distribution's 97.5 % quantile


def normalize_answer(text: str) -> str:
    """Strip blanks, lower the case, drop final periods: "Two. " and "two" are one answer. Nothing else is forgiven."""
    return re.sub(r"[\s.]+$", "", text).lstrip().lower()


def exact_match(prediction: str, target: str) -> bool:
    """Whether two answers are the same after `normalize_answer`."""
    return normalize_answer(prediction) == normalize_answer(target)


def wilson_interval(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (E. B. Wilson, 1927), sound near 0 and 1 where the normal one is not.

    The bounds are the two p at which |successes/n - p| = z * sqrt(p * (1 - p) / n).

    Raises:
        ValueError: n < 1 or successes outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}")
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    low = 0.0 if successes == 0 else centre - half  # exact: rounding must not move a bound past the proportion
    high = 1.0 if successes == n else centre + half
    return low, high


def accuracy_by_group(correct: Sequence[bool], groups: Iterable[Sequence[str]]) -> dict[str, dict[str, float]]:
    """`{group: {"n", "accuracy"}}`, groups in alphabetical order; an item belongs to any number of groups."""
    members: dict[str, list[bool]] = {}
    for is_correct, names in zip(correct, groups, strict=True):
        for name in names:
            members.setdefault(name, []).append(is_correct)
    return {name: {"n": len(hits), "accuracy": sum(hits) / len(hits)} for name, hits in sorted(members.items())}
