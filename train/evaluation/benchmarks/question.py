"""What a reader of a public benchmark tells of one question, and the words LLaVA-1.5's evaluation adds to it.

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
    """One question about one image.

    Args:
        record: its file and place there, for messages.
        question_id: unique in the benchmark.
        image: path relative to the image root.
        prompt: what the model is asked; readers leave out the benchmark's instruction, which `read_questions` adds.
        question: the question alone, which a localizer reads.
        targets: the right answers, of every annotator where there are several; of choices the letter.
        choices: texts of the options, A first.
        group: the part of the benchmark that gets a score of its own, such as a category.
        image_key: the image within its group, where the questions about one image are scored together.
        region: where the answer is to be seen, in pixels of the image, not yet checked.
        embedded: the image itself, where the benchmark's file holds it.
    """

    record: str
    question_id: str
    image: str
    prompt: str
    question: str
    targets: tuple[str, ...]
    choices: tuple[str, ...] = ()
    group: str | None = None
    image_key: str | None = None
    region: Box | None = None
    embedded: bytes | None = None


Reader = Callable[[Path], Iterator[BenchmarkQuestion]]


@dataclass(frozen=True)
class Benchmark:
    """How a benchmark is read, asked and scored.

    Args:
        read: its questions, of a folder with the files as they are published, or of such a file.
        metric: name of its metric.
        instruction: the last line of every prompt.
        read_with_ocr: the same questions with the text of the image in the prompt, where the benchmark has such text.
    """

    read: Reader
    metric: str
    instruction: str | None = SHORT_ANSWER
    read_with_ocr: Reader | None = None


def with_options(question: str, choices: Sequence[str]) -> str:
    """The question and a line for each option: `A. ...`."""
    options = zip(ascii_uppercase, choices, strict=False)
    return "\n".join([question, *(f"{letter}. {choice}" for letter, choice in options)])
