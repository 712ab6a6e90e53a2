"""Describe one question of a public benchmark, and the instruction that LLaVA-1.5's evaluation adds to it.

The prompts are those of LLaVA's docs/Evaluation.md and of the question files that it publishes for it (eval.zip).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from crop_model.regions import Box

SHORT_ANSWER = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
OR_UNANSWERABLE = f"When the provided information is insufficient, respond with 'Unanswerable'.\n{SHORT_ANSWER}"


@dataclass(frozen=True)
class BenchmarkQuestion:
    """Hold one question about one image.

    Args:
        record: file and number of the record, for messages.
        question_id: unique in the benchmark.
        image: path relative to the image root.
        question: the question alone, which a localizer reads.
        targets: the correct answers, one per annotator if there are several; the letter of a choice.
        prompt: the model's prompt, "" if it is the question alone; `read_questions` adds the benchmark's instruction.
        choices: texts of the options, A first.
        group: the part of the benchmark with its own score, such as a category.
        image_key: the image within its group, if the questions about one image are scored together.
        region: the region that shows the answer, in pixels of the image, not yet checked.
        embedded: the bytes of the image, if the benchmark's file holds them.
    """

    record: str
    question_id: str
    image: str
    question: str
    targets: tuple[str, ...]
    prompt: str = ""
    choices: tuple[str, ...] = ()
    group: str | None = None
    image_key: str | None = None
    region: Box | None = None
    embedded: bytes | None = None


Reader = Callable[[Path], Iterator[BenchmarkQuestion]]


@dataclass(frozen=True)
class Benchmark:
    """Define how a benchmark is read, prompted and scored.

    Args:
        read: reads its questions from a folder with the files as published, or from such a file.
        metric: name of its metric.
        instruction: the last line of every prompt.
        read_with_ocr: reads the same questions with the image's text in the prompt, if the benchmark has such text.
    """

    read: Reader
    metric: str
    instruction: str | None = SHORT_ANSWER
    read_with_ocr: Reader | None = None


def with_options(question: str, choices: Sequence[str]) -> str:
    """Return the question followed by a line for each option: `A. ...`."""
    options = zip(ascii_uppercase, choices, strict=False)
    return "\n".join([question, *(f"{letter}. {choice}" for letter, choice in options)])
