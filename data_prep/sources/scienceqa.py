"""Read ScienceQA's `problems.json`: school questions with choices, about half of them with an image.

    {"<id>": {"question", "choices": [...], "answer": index, "hint", "image": "image.png" or null, "split", "subject",
              "lecture", "solution", ...}, ...}         image at <split>/<id>/image.png

There are no boxes and no named objects: every region is the whole image until a localizer fills it in. The text of a
question includes its hint and its lettered choices, and the answer is the letter.
"""

from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Annotated

from pydantic import BaseModel, Field, TypeAdapter

from data_prep.common.errors import RecordError
from data_prep.common.fill import key
from data_prep.files.streams import json_mapping
from data_prep.schema.question import Question

from .base import Questions, Source


class Problem(BaseModel):
    question: str
    choices: list[str] = Field(min_length=1, max_length=len(ascii_uppercase))
    answer: int
    hint: str = ""
    image: str | None
    split: str
    subject: str | None = None


@dataclass(frozen=True)
class ScienceQa(Source):
    """Read ScienceQA's questions of one split that have an image."""

    annotations: str = field(metadata={"help": "problems.json."})
    split: str = key("train", "The questions of this split.", choices=("train", "val", "test"))

    licence = "CC BY-NC-SA 4.0"
    schema = TypeAdapter(tuple[Annotated[str, Field(pattern=r"^\w+$")], Problem])
    read = json_mapping

    def questions(self, record: tuple[str, Problem]) -> Questions:
        key, problem = record
        if problem.split != self.split:
            return
        if problem.image is None:
            raise RecordError("text_only", f"problem {key} has no image", "", problem.question)
        image = f"{problem.split}/{key}/{problem.image}"
        if not 0 <= problem.answer < len(problem.choices):
            message = f"problem {key}: answer {problem.answer} is none of its {len(problem.choices)} choices"
            raise RecordError("bad_answer", message, image, problem.question)
        lines = [problem.question, f"Context: {problem.hint}"] if problem.hint else [problem.question]
        lines += [f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, problem.choices, strict=False)]
        yield Question(image, "\n".join(lines), ascii_uppercase[problem.answer], kind=problem.subject)
