"""Exact match, and accuracies by group."""

import re
from collections.abc import Iterable, Sequence


def normalize_answer(text: str) -> str:
    """Strip blanks, lower the case, drop final periods: "Two. " and "two" are one answer. Nothing else is forgiven."""
    return re.sub(r"[\s.]+$", "", text).lstrip().lower()


def exact_match(prediction: str, target: str) -> bool:
    """Whether two answers are the same after `normalize_answer`."""
    return normalize_answer(prediction) == normalize_answer(target)


def accuracy_by_group(correct: Sequence[bool], groups: Iterable[Sequence[str]]) -> dict[str, dict[str, float]]:
    """`{group: {"n", "accuracy"}}`, groups in alphabetical order; an item belongs to any number of groups."""
    members: dict[str, list[bool]] = {}
    for is_correct, names in zip(correct, groups, strict=True):
        for name in names:
            members.setdefault(name, []).append(is_correct)
    return {name: {"n": len(hits), "accuracy": sum(hits) / len(hits)} for name, hits in sorted(members.items())}
