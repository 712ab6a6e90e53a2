"""Score MME (Fu et al., 2023): 14 categories, two yes-no questions per image, one correct answer each.

A category's score is 100 (accuracy over questions + share of images with both correct), 200 at most. Ten categories
make up perception (2000), four cognition (800). Papers report either perception alone (LLaVA-1.5-7B: 1510.7) or the
total of both (about 1862); `summarize` gives all three, with the total first.

The benchmark's code reads an answer's first four letters in lower case: "yes" if they contain it, else "no" if they
contain that (as do "Not sure" and "Know"), else neither. lmms-eval also removes periods and reads a lone y or n.
"""

from collections.abc import Sequence

import numpy as np

from data_prep.common.errors import DataError

from .rows import ScoredRow, grouped, mean_score, yes_or_no
from .sampling import Sampling

PERCEPTION = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
FULL_SCORE = 200.0 * len(PERCEPTION + COGNITION)


def read_answer(answer: str) -> str | None:
    """Read "yes", "no", or None for neither."""
    start = answer.strip().lower()[:4]
    return next((word for word in ("yes", "no") if word in start), None)


def mme(answer: str, targets: Sequence[str]) -> float:
    """Score 1 for the correct answer, else 0. DataError as of `yes_or_no`."""
    return float(read_answer(answer) == yes_or_no(targets))


def summarize(rows: Sequence[ScoredRow]) -> dict[str, float]:
    """Compute `total`, `perception`, `cognition`; each category's score, and its `acc/` and `acc_plus/` in [0, 1].

    Raises:
        DataError: an unknown category, or an image without exactly two questions.
    """
    categories = grouped(rows)
    unknown = [row for row in rows if row.group not in PERCEPTION + COGNITION]
    if unknown:
        raise DataError(f"question {unknown[0].question_id}: {unknown[0].group} is not a category of MME")
    accuracy = {category: mean_score(members) for category, members in categories.items()}
    both = {category: _share_of_images_right(category, members) for category, members in categories.items()}
    scores = {category: 100 * (accuracy[category] + both[category]) for category in categories}
    perception = sum(scores.get(category, 0.0) for category in PERCEPTION)
    cognition = sum(scores.get(category, 0.0) for category in COGNITION)
    return (
        {"total": perception + cognition, "perception": perception, "cognition": cognition}
        | scores
        | {f"acc/{category}": share for category, share in accuracy.items()}
        | {f"acc_plus/{category}": share for category, share in both.items()}
    )


def _share_of_images_right(category: str, rows: Sequence[ScoredRow]) -> float:
    images: dict[str, list[float]] = {}
    for row in rows:
        images.setdefault(str(row.image_key), []).append(row.score)
    for name, pair in images.items():
        if len(pair) != 2:
            raise DataError(f"MME asks two questions about an image; about {category}/{name} it is {len(pair)}")
    return sum(sum(pair) == 2 for pair in images.values()) / len(images)


def _summands(unit: Sequence[ScoredRow]) -> tuple[float, ...]:
    """Return an image's part of its category's score, and one."""
    return 100 * (mean_score(unit) + all(row.score == 1 for row in unit)), 1.0


SAMPLING = Sampling(lambda row: str(row.image_key), _summands, stratum=lambda row: str(row.group), combine=np.sum)
