"""Score multiple choice answered by a letter: ScienceQA, MMBench, SEED-Bench.

A letter is read from "B", "b", "B.", "(B)", "B. a dog" and "The answer is B"; LLaVA's ScienceQA code reads "B", "B. a
dog" and, if it occurs once, "The answer is B.". An answer that names no option is wrong. ScienceQA's own code draws an
option at random in that case, LLaVA's counts it as wrong, MMBench's matches the options' texts and asks GPT, and
LLaVA's SEED code accepts only the bare letter.

MMBench asks some questions several times with rotated options (circular evaluation, Liu et al., 2023): the question
counts if every rotation is right. A rotation's id is the question's plus a multiple of 1,000,000.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from string import ascii_uppercase

from data_prep.common.errors import DataError

from .rows import ScoredRow, mean_score, means, only_target
from .sampling import Sampling

ROTATION_STEP = 1_000_000
_LETTER = re.compile(r"\(?([A-Za-z])\)?[.:]?")
_LETTER_AND_TEXT = re.compile(r"\(?([A-Z])[.)]\s")
_SENTENCE = re.compile(r"[Aa]nswer is:? \(?([A-Z])\b")


def read_letter(answer: str, options: int) -> str | None:
    """Return the option that an answer names, "A" being the first of `options`, or None."""
    answer = answer.strip()
    bare = _LETTER.fullmatch(answer) or _LETTER_AND_TEXT.match(answer)
    letters = [bare[1].upper()] if bare else _SENTENCE.findall(answer)
    named = len(letters) == 1 and letters[0] in ascii_uppercase[:options]
    return letters[0] if named else None


def choice(answer: str, targets: Sequence[str], choices: Sequence[str]) -> float:
    """Score 1 for the correct letter, else 0; the number of `choices` determines the letters.

    Raises:
        DataError: the target is not the letter of an option.
    """
    target = only_target(targets)
    letters = ascii_uppercase[: len(choices)]
    if len(target) != 1 or target not in letters:
        raise DataError(f"the target of {len(choices)} options is one of {', '.join(letters)}, not {target!r}")
    return float(read_letter(answer, len(choices)) == target)


def summarize(rows: Sequence[ScoredRow]) -> dict[str, float]:
    """Compute the accuracies of the questions.

    `accuracy` and `accuracy/<group>` are the share of questions correct in all their rotations, `vanilla_accuracy` the
    share correct before any rotation. Without rotations the two are equal.

    Raises:
        DataError: a rotation of a missing question.
    """
    rotations: dict[str, list[ScoredRow]] = {}
    for row in rows:
        rotations.setdefault(_question(row), []).append(row)
    first = {row.question_id: row for row in rows if row.question_id in rotations}
    missing = [group[0] for question, group in rotations.items() if question not in first]
    if missing:
        raise DataError(f"question {missing[0].question_id} is a rotation of {_question(missing[0])}, which is missing")
    circular = [replace(first[question], score=_all_right(group)) for question, group in rotations.items()]
    return means(circular) | {"vanilla_accuracy": mean_score(list(first.values()))}


def _question(row: ScoredRow) -> str:
    """Return the id that a question's rotations share."""
    is_rotation = row.question_id.isdecimal() and int(row.question_id) >= ROTATION_STEP
    return str(int(row.question_id) % ROTATION_STEP) if is_rotation else row.question_id


def _all_right(rotations: Sequence[ScoredRow]) -> float:
    return float(all(row.score == 1 for row in rotations))


def _summands(unit: Sequence[ScoredRow]) -> tuple[float, ...]:
    return _all_right(unit), 1.0


SAMPLING = Sampling(unit=_question, summands=_summands)
