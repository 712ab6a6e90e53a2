"""Score the Visual-CoT benchmark (Shao et al., NeurIPS 2024) locally, by this project's rule.

The benchmark asks a GPT model to rate in [0, 1] how close an answer is to the target, so its numbers are not
comparable. Here an answer is correct if it contains the target's words, in order and adjacent, both after
`vqa.evalai_normalize`. A wordy answer that happens to contain the target is correct too: `exact_accuracy` is the share
of answers that equal the target.
"""

from collections.abc import Sequence

from .rows import ScoredRow, best_target, means
from .vqa import evalai_normalize


def visual_cot(answer: str, targets: Sequence[str]) -> float:
    """Score 1 if the answer contains a target, else 0. DataError without a target."""
    return best_target(targets, lambda target: float(_contains(answer, target)))


def _contains(answer: str, target: str) -> bool:
    words, wanted = evalai_normalize(answer), evalai_normalize(target)
    return f" {wanted} " in f" {words} " if wanted else not words


def summarize(rows: Sequence[ScoredRow]) -> dict[str, float]:
    """Compute `accuracy` and `accuracy/<data set>` by containment, and `exact_accuracy`."""
    exact = [evalai_normalize(row.answer) in map(evalai_normalize, row.targets) for row in rows]
    return means(rows) | {"exact_accuracy": sum(exact) / len(exact)}
