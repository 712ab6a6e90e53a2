"""Compute exact match, and accuracies by group."""

import re
from collections.abc import Iterable, Sequence


def normalize_answer(text: str) -> str:
    """Strip blanks, convert to lower case and drop final periods: "Two. " and "two" are the same answer."""
    return re.sub(r"[\s.]+$", "", text).lstrip().lower()


def exact_match(prediction: str, target: str) -> bool:
    """Check that two answers are equal after `normalize_answer`."""
    return normalize_answer(prediction) == normalize_answer(target)


def accuracy_by_group(correct: Sequence[bool], groups: Iterable[Sequence[str]]) -> dict[str, dict[str, float]]:
    """Return `{group: {"n", "accuracy"}}`, sorted by group; an item belongs to any number of groups."""
    members: dict[str, list[bool]] = {}
    for is_correct, names in zip(correct, groups, strict=True):
        for name in names:
            members.setdefault(name, []).append(is_correct)
    return {name: {"n": len(hits), "accuracy": sum(hits) / len(hits)} for name, hits in sorted(members.items())}
