"""Hold a scored question, and the shared parts of metrics: one target, means, means by group."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_prep.common.errors import DataError


@dataclass(frozen=True)
class ScoredRow:
    """Hold one answered question. `group`: POPE split, MME category or SEED type; `image_key` identifies its image."""

    question_id: str
    answer: str
    targets: tuple[str, ...]
    choices: tuple[str, ...]
    group: str | None
    image_key: str | None
    score: float  # in [0, 1]


def only_target(targets: Sequence[str]) -> str:
    """Return the only target of a question.

    Raises:
        DataError: the question has more or fewer.
    """
    if len(targets) != 1:
        raise DataError(f"one target was expected, not {len(targets)}: {list(targets)}")
    return targets[0]


def yes_or_no(targets: Sequence[str]) -> str:
    """Return the only target, "yes" or "no".

    Raises:
        DataError: the question has more or fewer targets, or another one.
    """
    target = only_target(targets).strip().lower()
    if target not in ("yes", "no"):
        raise DataError(f"the targets of yes-no questions are yes and no, not {target!r}")
    return target


def best_target(targets: Sequence[str], score: Callable[[str], float]) -> float:
    """Return the highest score over the targets.

    Raises:
        DataError: no target.
    """
    if not targets:
        raise DataError("no target to compare the answer with")
    return max(score(target) for target in targets)


def grouped(rows: Sequence[ScoredRow]) -> dict[str, list[ScoredRow]]:
    """Group rows, with groups in alphabetical order; rows without a group are skipped."""
    groups: dict[str, list[ScoredRow]] = {}
    for row in rows:
        if row.group is not None:
            groups.setdefault(row.group, []).append(row)
    return dict(sorted(groups.items()))


def mean_score(rows: Sequence[ScoredRow]) -> float:
    """Compute the mean of the rows' scores."""
    return sum(row.score for row in rows) / len(rows)


def means(rows: Sequence[ScoredRow]) -> dict[str, float]:
    """Compute the mean scores: `accuracy`, and `accuracy/<group>` for every group."""
    by_group = {f"accuracy/{group}": mean_score(members) for group, members in grouped(rows).items()}
    return {"accuracy": mean_score(rows), **by_group}
