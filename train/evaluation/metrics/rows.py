"""A scored question, and what the metrics share: one target, means, means by group."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_prep.common.errors import DataError


@dataclass(frozen=True)
class ScoredRow:
    """One answered question. `group`: a POPE split, an MME category, a SEED type; `image_key` tells images apart."""

    question_id: str
    answer: str
    targets: tuple[str, ...]
    choices: tuple[str, ...]
    group: str | None
    image_key: str | None
    score: float  # in [0, 1]


def only_target(targets: Sequence[str]) -> str:
    """The one right answer of a question that has one.

    Raises:
        DataError: there are more or fewer.
    """
    if len(targets) != 1:
        raise DataError(f"one target was expected, not {len(targets)}: {list(targets)}")
    return targets[0]


def best_target(targets: Sequence[str], score: Callable[[str], float]) -> float:
    """The highest score that any target gives.

    Raises:
        DataError: no target.
    """
    if not targets:
        raise DataError("no target to compare the answer with")
    return max(score(target) for target in targets)


def grouped(rows: Sequence[ScoredRow]) -> dict[str, list[ScoredRow]]:
    """Rows by group, groups in alphabetical order; rows without a group are in none."""
    groups: dict[str, list[ScoredRow]] = {row.group: [] for row in rows if row.group is not None}
    for row in rows:
        if row.group is not None:
            groups[row.group].append(row)
    return dict(sorted(groups.items()))


def mean_score(rows: Sequence[ScoredRow]) -> float:
    """The mean of the rows' scores."""
    return sum(row.score for row in rows) / len(rows)


def means(rows: Sequence[ScoredRow]) -> dict[str, float]:
    """`accuracy`, and `accuracy/<group>` for every group: the mean scores."""
    return {"accuracy": mean_score(rows)} | {
        f"accuracy/{group}": mean_score(members) for group, members in grouped(rows).items()
    }
