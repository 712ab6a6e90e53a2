"""Read DocVQA: `<split>_v1.0.json` (`<split>_v1.0_withQT.json`), with a folder of the text of its pages.

    {"data": [{"questionId", "question", "question_types"?, "image": "documents/<page>.png", "answers", ...}, ...]}
    <page>.json: {"recognitionResults": [{"width", "height", "lines": [{"words": [{"text", "boundingBox": [x1, y1,
                 x2, y2, x3, y3, x4, y4]}, ...]}, ...]}]}; pixels of a page of that size

The test split has no answers.
"""

from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from data_prep.common.errors import RecordError
from data_prep.common.fill import key
from data_prep.files.streams import json_list
from data_prep.schema.question import LabelledBox

from .base import Questions, Sized, Source, below, bounds, first_error, votes
from .rosetta import NO_OCR, UNREAD, ImageText

Ocr = TypeVar("Ocr", bound=BaseModel)
CACHED_PAGES = 64  # questions of one page follow one another


class Record(BaseModel):
    question: str
    image: str
    answers: list[str] = []
    kinds: list[str] = Field(default=[], alias="question_types")


class Word(BaseModel):
    text: str
    quad: tuple[float, float, float, float, float, float, float, float] = Field(alias="boundingBox")


class OcrLine(BaseModel):
    words: list[Word] = []


class Page(Sized):
    lines: list[OcrLine]


class Recognized(BaseModel):
    pages: list[Page] = Field(alias="recognitionResults", min_length=1)


@dataclass(frozen=True)
class DocVqa(Source):
    """Read DocVQA's questions; the region is the text of the page that shows the answer."""

    annotations: str = field(metadata={"help": "<split>_v1.0.json."})
    ocr: str | None = key(None, "Folder of the text of the images, one JSON file per image.")
    folder: str = key("", "Folder below image_root that the paths of images start from.")

    schema = TypeAdapter(Record)
    file_keys = ("annotations", "ocr")
    read = partial(json_list, prefix="data.item")

    def questions(self, record: Any) -> Questions:
        text = UNREAD if self.ocr is None else self.text_of(Path(self.ocr), record)
        image, kind = below(self.folder, record.image), ", ".join(record.kinds) or None
        yield text.question(image, record.question, list(votes(record.answers)), kind)

    def text_of(self, folder: Path, record: Any) -> ImageText:
        """Return the text of a record's image, flagged `no_ocr` if `folder` has no file for it."""
        return read_page(folder / f"{PurePosixPath(record.image).stem}.json")


@lru_cache(maxsize=CACHED_PAGES)
def read_page(path: Path) -> ImageText:
    """Read the text of a page; RecordError if the file has another form."""
    recognized = read_ocr(Recognized, path)
    if recognized is None:
        return NO_OCR
    page = recognized.pages[0]  # a file holds one page
    words = [
        LabelledBox(word.text, bounds(word.quad[0::2], word.quad[1::2])) for line in page.lines for word in line.words
    ]
    return ImageText(words, "pixels", page.size)


def read_ocr(form: type[Ocr], path: Path) -> Ocr | None:
    """Parse a JSON file by its schema; None if there is no such file."""
    try:
        content = path.read_bytes()
    except (OSError, ValueError):  # ValueError: an impossible file name
        return None
    try:
        return form.model_validate_json(content)
    except ValidationError as error:
        raise RecordError("bad_ocr", first_error(error, str(path))) from None
