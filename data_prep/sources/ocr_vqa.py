"""Read OCR-VQA: `dataset.json`, questions about book covers.

    {key: {"imageURL", "title", "authorName", "genre", "questions": [...], "answers": [...], "split": 1 | 2 | 3}}

A record's image is named by its key and the extension of its URL; several hundred are missing, and others are GIFs
under another name. A cover shows its title, author and year, but not its genre.
"""

from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, TypeAdapter

from data_prep.common.errors import RecordError
from data_prep.common.fill import key
from data_prep.files.streams import json_mapping

from .base import Questions
from .rosetta import RosettaText

SPLITS = {"train": 1, "val": 2, "test": 3}
YES_OR_NO = ("yes", "no")


class Cover(BaseModel):
    url: str = Field(alias="imageURL")
    genre: str = ""
    questions: list[str]
    answers: list[str]
    split: Literal[1, 2, 3]


@dataclass(frozen=True)
class OcrVqa(RosettaText):
    """Read OCR-VQA's questions; the region is the text in which `rosetta` (image_id: the key) has the answer."""

    annotations: str = field(kw_only=True, metadata={"help": "dataset.json."})
    split: str = key("train", "Which questions.", choices=tuple(SPLITS))
    folder: str = key("images", "Folder of the images below image_root.")
    extension: str | None = key(None, "Extension of every image, such as .jpg for LLaVA's copy; null: that of its URL.")

    schema = TypeAdapter(tuple[str, Cover])
    file_keys = ("annotations", "rosetta")
    read = json_mapping

    def questions(self, record: tuple[str, Cover]) -> Questions:
        key, cover = record
        if cover.split != SPLITS[self.split]:
            return
        image = f"{self.folder}/{key}{_extension(cover.url) if self.extension is None else self.extension}"
        if len(cover.questions) != len(cover.answers):
            counts = f"{len(cover.questions)} questions, {len(cover.answers)} answers"
            raise RecordError("answers", f"{key}: {counts}", image)
        text = self.text_in(key)
        for turn, (question_text, answer) in enumerate(zip(cover.questions, cover.answers, strict=True)):
            question = text.question(image, question_text, [answer])
            question.turn = turn
            question.whole_image = answer.casefold() in (*YES_OR_NO, cover.genre.casefold())
            yield question


def _extension(url: str) -> str:
    try:
        return PurePosixPath(urlsplit(url).path).suffix
    except ValueError as error:
        raise RecordError("schema", f"imageURL: {error}") from None
