"""Compute ANLS, the average normalised Levenshtein similarity of DocVQA (Biten et al., ICCV 2019).

    score = max over targets of s,  s = 1 - distance / longest length,  0 if that is below 0.5

At exactly 0.5 the paper's formula gives 0 (it accepts distances below 0.5), while the benchmark's own evaluation and
lmms-eval give 0.5 (they drop similarities below 0.5), as this does. Like both, it takes the distance of the lower-case
texts with single blanks, but the length of the original texts: each extra blank makes a wrong answer score a little
more.
"""

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from .rows import best_target

THRESHOLD = 0.5


def anls(answer: str, targets: Sequence[str]) -> float:
    """Compute the ANLS of one question, in {0} or [0.5, 1]. DataError without a target."""
    similarity = best_target(targets, lambda target: _similarity(answer, target))
    return similarity if similarity >= THRESHOLD else 0.0


def _similarity(answer: str, target: str) -> float:
    length = max(
        len(answer.upper()), len(target.upper())
    )  # upper() lengthens a few letters, as in the benchmark's code
    return 1.0 if length == 0 else 1 - Levenshtein.distance(_plain(answer), _plain(target)) / length


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
