import random
from functools import cache

import pytest

from data_prep.common.errors import DataError
from tests.train.evaluation.metrics import lmms_reference
from train.evaluation.metrics.anls import anls


def distance(a, b):
    """Levenshtein's recurrence, as it is written down."""

    @cache
    def d(i, j):
        if i == 0 or j == 0:
            return i + j
        return min(d(i - 1, j) + 1, d(i, j - 1) + 1, d(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return d(len(a), len(b))


def test_agrees_with_the_formula():
    draws, kept = random.Random(0), set()
    for _ in range(500):
        answer, *targets = ("".join(draws.choices("abc", k=draws.randint(1, 7))) for _ in range(draws.randint(2, 4)))
        similarity = max(1 - distance(answer, target) / max(len(answer), len(target)) for target in targets)
        assert anls(answer, targets) == (similarity if similarity >= 0.5 else 0)
        kept.add(similarity >= 0.5)
    assert kept == {True, False}


@pytest.mark.parametrize(
    ("answer", "target", "score"),
    [
        ("ab", "ax", 0.5),
        ("abcdef", "abcxyz", 0.5),
        ("abcde", "abxyz", 0),
        ("abcdex", "abcyyy", 0.5),
        ("abc", "abxy", 0.5),
    ],
)
def test_exactly_half_counts_and_less_does_not(answer, target, score):
    assert anls(answer, [target]) == score


def test_case_and_blanks_do_not_count_as_edits():
    assert anls("  The  Cat\n", ["the cat"]) == 1
    assert anls("the dog ", ["the cat"]) == 1 - 3 / 8  # but a blank too many adds to the length
    assert anls("", [""]) == 1


def test_no_target_is_refused():
    with pytest.raises(DataError, match="no target"):
        anls("a", [])


def test_agrees_with_an_installed_reference():
    if (folder := lmms_reference.package()) is None:
        pytest.skip("lmms-eval is not installed")
    reference = lmms_reference.definitions(folder, "api/metrics.py", "levenshtein_distance", "anls").anls
    draws = random.Random(1)
    for _ in range(2000):
        answer, *targets = ("".join(draws.choices("aBc ßé", k=draws.randint(0, 6))) for _ in range(4))
        assert anls(answer, targets) == reference(targets, [answer])["anls"]
