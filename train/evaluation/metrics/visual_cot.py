"""The Visual-CoT benchmark (Shao et al., NeurIPS 2024), scored on this machine: the rule is this project's.

The benchmark asks a GPT model for a score in [0, 1] of how close an answer is to the target, so its numbers are not
these. Here an answer is right if the target's words stand in it, in order and side by side, both after
`vqa.evalai_normalize`. A wordy answer that happens to hold the target is right too: `exact_accuracy` says how many
answers are the target and nothing else.
"""

from collections.abc import Sequence

from .rows import ScoredRow, best_target, means
from .vqa import evalai_normalize


def visual_cot(answer: str, targets: Sequence[str]) -> float:
    """1 if a target stands in the answer, else 0.

    Raises:
        DataError: no target.
    """
    return best_target(targets, lambda target: float(_contains(answer, target)))


def _contains(answer: str, target: str) -> bool:
    words, wanted = evalai_normalize(answer), evalai_normalize(target)
    return f" {wanted} " in f" {words} " if wanted else not words


def summarize(rows: Sequence[ScoredRow]) -> dict[str, float]:
    """`accuracy` and `accuracy/<data set>` by containment, and `exact_accuracy`."""
    exact = [evalai_normalize(row.answer) in map(evalai_normalize, row.targets) for row in rows]
    return means(rows) | {"exact_accuracy": sum(exact) / len(exact)}
