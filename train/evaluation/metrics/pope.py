"""Score POPE, the hallucination of objects (Li et al., EMNLP 2023); "yes" is the positive class.

The benchmark reads an answer's first sentence, without commas: "no" if one of its words is No, no or not, and "yes"
otherwise, whatever else it contains ("NO", "none", an empty answer). Its code scores each split alone; papers,
including LLaVA's 85.9, average the splits' F1. lmms-eval differs: it compares whole answers with "yes" and "no", pools
the splits, and its yes ratio counts the targets, so that it is the same for every model.
"""

from collections.abc import Sequence

import numpy as np

from .rows import ScoredRow, grouped, yes_or_no
from .sampling import Array, Sampling


def says_yes(answer: str) -> bool:
    """Read an answer as the benchmark does."""
    words = answer.split(".", maxsplit=1)[0].replace(",", "").split(" ")
    return not {"No", "no", "not"}.intersection(words)


def pope(answer: str, targets: Sequence[str]) -> float:
    """Score 1 for the correct answer, else 0. DataError as of `yes_or_no`."""
    return float(says_yes(answer) == (yes_or_no(targets) == "yes"))


def summarize(rows: Sequence[ScoredRow]) -> dict[str, float]:
    """Compute `accuracy`, `precision`, `recall`, `f1` and `yes_ratio`, averaged over splits and per `/<split>`.

    A ratio 0 / 0 is 0.
    """
    splits = {name: _of_one_split(members) for name, members in grouped(rows).items()}
    if not splits:
        return _of_one_split(rows)
    names = next(iter(splits.values()))
    averages = {name: sum(split[name] for split in splits.values()) / len(splits) for name in names}
    return averages | {f"{name}/{split}": splits[split][name] for split in splits for name in names}


def _of_one_split(rows: Sequence[ScoredRow]) -> dict[str, float]:
    true_yes, false_yes, false_no = np.sum([_summands([row]) for row in rows], axis=0).tolist()
    return {
        "accuracy": 1 - (false_yes + false_no) / len(rows),
        "precision": _ratio(true_yes, true_yes + false_yes),
        "recall": _ratio(true_yes, true_yes + false_no),
        "f1": _ratio(2 * true_yes, 2 * true_yes + false_yes + false_no),
        "yes_ratio": (true_yes + false_yes) / len(rows),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _summands(unit: Sequence[ScoredRow]) -> tuple[float, ...]:
    """Count a question's correct yes, wrong yes and wrong no."""
    yes, right = says_yes(unit[0].answer), unit[0].score == 1
    return float(yes and right), float(yes and not right), float(not yes and not right)


def _f1(sums: Array) -> Array:
    """Convert (..., 3) sums of `_summands` to (...) F1, the harmonic mean of precision and recall."""
    twice = 2 * sums[..., 0]
    return twice / np.maximum(twice + sums[..., 1] + sums[..., 2], 1)  # counts: below 1 they are all 0


SAMPLING = Sampling(summands=_summands, ratio=_f1, stratum=lambda row: row.group or "")
