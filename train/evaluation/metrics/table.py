"""List the metrics by name."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from . import choice, mme, pope, visual_cot
from .anls import anls
from .matching import exact_match
from .rows import ScoredRow, best_target, means
from .sampling import MEAN_OF_QUESTIONS, Sampling
from .vqa import vqa_accuracy, vqav2_accuracy

Score = Callable[[str, Sequence[str], Sequence[str]], float]


@dataclass(frozen=True)
class Metric:
    """Define how a benchmark scores.

    Attributes:
        score: scores (answer, targets, choices) in [0, 1]; raises DataError if the targets do not fit the metric.
        summarize: summarises all scored rows, at least one; raises DataError if they do not fit together.
        headline: the summary's key that papers report.
        full_score: the headline if every answer is correct.
        sampling: the headline as a bootstrap resamples it.
    """

    score: Score
    summarize: Callable[[Sequence[ScoredRow]], dict[str, float]] = means
    headline: str = "accuracy"
    full_score: float = 1.0
    sampling: Sampling = MEAN_OF_QUESTIONS

    def value(self, rows: Sequence[ScoredRow]) -> float:
        """Compute the headline of some rows."""
        return self.summarize(rows)[self.headline]


def _any_choices(score: Callable[[str, Sequence[str]], float]) -> Score:
    return lambda answer, targets, choices: score(answer, targets)


def _exact_match(answer: str, targets: Sequence[str]) -> float:
    return best_target(targets, lambda target: float(exact_match(answer, target)))


METRICS: dict[str, Metric] = {
    "exact_match": Metric(_any_choices(_exact_match)),
    "vqa_accuracy": Metric(_any_choices(vqa_accuracy)),
    "vqav2_accuracy": Metric(_any_choices(vqav2_accuracy)),
    "anls": Metric(_any_choices(anls)),
    "visual_cot": Metric(_any_choices(visual_cot.visual_cot), visual_cot.summarize),
    "pope": Metric(_any_choices(pope.pope), pope.summarize, "f1", sampling=pope.SAMPLING),
    "mme": Metric(_any_choices(mme.mme), mme.summarize, "total", mme.FULL_SCORE, mme.SAMPLING),
    "choice": Metric(choice.choice, choice.summarize, sampling=choice.SAMPLING),
}
