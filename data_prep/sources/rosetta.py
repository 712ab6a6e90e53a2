"""Read text in images in the form of the OCR system Rosetta, made for TextVQA; other sources use this form as well.

{"data": [{"image_id", "ocr_info": [{"word", "bounding_box": {"top_left_x", "top_left_y", "width", "height",
 "rotation"}}, ...], ...}, ...]}       fractions of the image, some outside [0, 1]
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

from pydantic import BaseModel, TypeAdapter

from data_prep.files.lookup import Index
from data_prep.files.streams import json_list
from data_prep.schema.question import BoxFrame, LabelledBox, Question

from .base import Source, look_up, xywh


class ImageText(NamedTuple):
    """Hold the text of an image: words in reading order, the frame of their boxes, the size that pixels refer to."""

    words: Sequence[LabelledBox] = ()
    frame: BoxFrame = "unit"
    size: tuple[int, int] | None = None
    flags: tuple[str, ...] = ()

    def question(self, image: str, text: str, answers: Sequence[str], kind: str | None = None) -> Question:
        """Make a question whose answer is matched with this text; the first answer, if any, is trained on."""
        return Question(
            image=image,
            text=text,
            answer=answers[0] if answers else "",
            kind=kind,
            size=self.size,
            frame=self.frame,
            answers=answers,
            words=self.words,
            flags=self.flags,
        )


UNREAD = ImageText()
NO_OCR = ImageText(flags=("no_ocr",))


class RosettaBox(BaseModel):
    top_left_x: float
    top_left_y: float
    width: float
    height: float


class RosettaWord(BaseModel):
    word: str
    bounding_box: RosettaBox


_ROSETTA = TypeAdapter(list[RosettaWord])


@dataclass(frozen=True)
class RosettaText(Source):
    """Read questions about images whose text is in a file of Rosetta's form."""

    rosetta: str | None = field(
        default=None, metadata={"help": "Text in the images, in the form of TextVQA_Rosetta_OCR_v0.2_<split>.json."}
    )
    table: Index | None = field(init=False, default=None, repr=False, compare=False)

    file_keys: ClassVar[tuple[str, ...]] = ("rosetta",)

    def prepare(self, folder: Path, image_root: Path | None) -> Self:
        if self.rosetta is None:
            return self
        return self.having(table=Index.build(folder / "rosetta.sqlite", _rosetta_items(self.rosetta)))

    def text_in(self, image_id: str) -> ImageText:
        """Return the text in an image, flagged `no_ocr` if the file does not have it."""
        if self.table is None:
            return UNREAD
        words = self.table.get(image_id)
        if words is None:
            return NO_OCR
        return ImageText([_labelled(word) for word in look_up(_ROSETTA, words, f"rosetta: image {image_id}")])


def _rosetta_items(path: str) -> Iterator[tuple[str, Any]]:
    for item in json_list(path, "data.item"):
        match item:
            case {"image_id": str() | int() as image_id, "ocr_info": words}:
                yield str(image_id), words


def _labelled(word: RosettaWord) -> LabelledBox:
    """Return a word with its upright box; the rotation, which is mostly near 0, is ignored."""
    box = word.bounding_box
    return LabelledBox(word.word, xywh(box.top_left_x, box.top_left_y, box.width, box.height))
