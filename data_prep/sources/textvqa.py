"""Read TextVQA: `TextVQA_0.5.1_<split>.json`, with the text that Rosetta or TextOCR's annotators read in the images.

    {"data": [{"question_id", "question", "image_id", "image_width", "image_height", "answers": [ten], ...}, ...]}

    TextOCR   {"imgs": {image_id: {"width", "height", ...}}, "anns": {id: {"image_id", "bbox": [x, y, w, h],
              "utf8_string", ...}}, "imgToAnns": {image_id: [id, ...]}}; pixels

A question that most annotators could not answer from the text in the image is rejected. The test split has no answers.
Rosetta's form is described in `rosetta.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from pydantic import BaseModel, TypeAdapter

from data_prep.common.errors import ConfigError, RecordError
from data_prep.common.fill import key
from data_prep.files.streams import json_list, json_mapping
from data_prep.schema.question import LabelledBox

from .base import XYXY, Id, Items, Pixels, Questions, Sized, look_up, votes, xywh
from .rosetta import NO_OCR, ImageText, RosettaText

NO_ANSWER = frozenset(("unanswerable", "answering does not require reading text in the image"))
ENOUGH_ANNOTATORS = 3  # out of ten: an answer that so many gave is fully correct by VQA's accuracy


class TextOcrWord(BaseModel):
    utf8_string: str
    bbox: XYXY


class Record(BaseModel):
    question: str
    image_id: Id
    image_width: Pixels | None = None
    image_height: Pixels | None = None
    answers: list[str] = []


@dataclass(frozen=True)
class TextVqa(RosettaText):
    """Read TextVQA's questions; the region is the text in which Rosetta or TextOCR has the answer."""

    annotations: str = field(kw_only=True, metadata={"help": "TextVQA_0.5.1_<split>.json."})
    textocr: str | None = key(None, "Text in the images, in the form of TextOCR_0.1_<split>.json, instead of rosetta.")
    folder: str = key("train_images", "Folder of the images below image_root.")

    licence = "CC BY 4.0"
    schema = TypeAdapter(Record)
    file_keys = ("annotations", "rosetta", "textocr")
    read = partial(json_list, prefix="data.item")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rosetta and self.textocr:
            raise ConfigError("textocr: give either rosetta or textocr")

    def lookups(self) -> dict[str, Items]:
        return super().lookups() if self.textocr is None else {"textocr": _textocr_items(self.textocr)}

    def text_in(self, image_id: str) -> ImageText:
        if "textocr" not in self.tables:
            return super().text_in(image_id)
        name = f"textocr: image {image_id}"
        image: Sized | None = self.entry("textocr", f"imgs/{image_id}", Sized, name)
        if image is None:
            return NO_OCR
        words = []
        table = self.tables["textocr"]
        for number in look_up(list[Id], table.get(f"imgToAnns/{image_id}") or [], name):
            word: TextOcrWord = look_up(TextOcrWord, table.get(f"anns/{number}"), f"{name}: annotation {number}")
            words.append(LabelledBox(word.utf8_string, xywh(*word.bbox)))
        return ImageText(in_reading_order(words), "pixels", image.size)

    def questions(self, record: Record) -> Questions:
        image, counts = f"{self.folder}/{record.image_id}.jpg", votes(record.answers)
        ranked = list(counts)
        if ranked and ranked[0].casefold() in NO_ANSWER:
            raise RecordError("unanswerable", f"most annotators: {ranked[0]!r}", image, record.question)
        answers = [answer for answer in ranked if counts[answer] >= ENOUGH_ANNOTATORS] or ranked[:1]
        question = self.text_in(record.image_id).question(image, record.question, answers)
        if question.size is None and record.image_width and record.image_height:
            question.size = record.image_width, record.image_height
        yield question


def _textocr_items(path: str) -> Items:
    for part in ("imgs", "imgToAnns", "anns"):
        for name, value in json_mapping(path, part):
            yield f"{part}/{name}", value


def in_reading_order(words: Sequence[LabelledBox]) -> list[LabelledBox]:
    """Sort words line by line: a line extends while words are centred above the bottom of its topmost-centred word."""
    lines: list[list[LabelledBox]] = []
    for word in sorted(words, key=lambda word: word.box[1] + word.box[3]):
        if lines and (word.box[1] + word.box[3]) / 2 < lines[-1][0].box[3]:
            lines[-1].append(word)
        else:
            lines.append([word])
    return [word for line in lines for word in sorted(line, key=lambda word: word.box[0])]
