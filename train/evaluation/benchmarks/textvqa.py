"""Read TextVQA: `TextVQA_0.5.1_val.json`, with or without the text that Rosetta read in the images in the prompt.

    {"data": [{"question_id", "question", "image_id", "answers": [ten], ...}, ...]}
    TextVQA_Rosetta_OCR_v0.2_val.json: {"data": [{"image_id", "ocr_tokens": ["DAKOTA", ...], ...}, ...]}

Images are `<image_id>.jpg`. LLaVA's published numbers use that text: its prompts contain `Reference OCR token: a, b`,
with capitalised questions. The test split has no answers.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import BaseModel

from data_prep.common.errors import DataError
from data_prep.files.streams import json_list
from data_prep.sources.base import Id

from .files import by_key, numbered, official_file
from .question import BenchmarkQuestion


class Record(BaseModel):
    question_id: Id
    question: str
    image_id: str
    answers: list[str] = []


class ImageText(BaseModel):
    image_id: str
    ocr_tokens: list[str]


def read(path: Path) -> Iterator[BenchmarkQuestion]:
    """Read the questions of the val split or of another split's file, without the images' text."""
    return _questions(_annotations(path), lambda name, record: record.question.capitalize())


def read_with_ocr(path: Path) -> Iterator[BenchmarkQuestion]:
    """Read the same questions with the images' text, from Rosetta's file beside theirs."""
    file = _annotations(path)
    split = file.stem.rpartition("_")[2]
    text_file = official_file(file.parent, f"TextVQA_Rosetta_OCR_v0.2_{split}.json")
    records = numbered(text_file, ImageText, json_list(text_file, "data.item"))
    texts = by_key(records, lambda text: text.image_id, "text of image")

    def prompt(name: str, record: Record) -> str:
        if record.image_id not in texts:
            raise DataError(f"{name}: {text_file} has no text of image {record.image_id}")
        words = ", ".join(texts[record.image_id].ocr_tokens)
        return f"{record.question.capitalize()}\nReference OCR token: {words}"

    return _questions(file, prompt)


def _annotations(path: Path) -> Path:
    return official_file(path, "TextVQA_0.5.1_val.json")


def _questions(file: Path, prompt: Callable[[str, Record], str]) -> Iterator[BenchmarkQuestion]:
    for name, record in numbered(file, Record, json_list(file, "data.item")):
        image, targets = f"{record.image_id}.jpg", tuple(record.answers)
        yield BenchmarkQuestion(name, record.question_id, image, record.question, targets, prompt(name, record))
