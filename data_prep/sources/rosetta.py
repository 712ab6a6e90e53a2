"""Read text in images in the form of the OCR system Rosetta, made for TextVQA; other sources use this form as well.

{"data": [{"image_id", "ocr_info": [{"word", "bounding_box": {"top_left_x", "top_left_y", "width", "height",
 "rotation"}}, ...], ...}, ...]}       fractions of the image, some outside [0, 1]
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel

from data_prep.common.fill import key
from data_prep.files.streams import json_list
from data_prep.schema.question import BoxFrame, LabelledBox, Question

from .base import Items, Source, xywh


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

    def labelled(self) -> LabelledBox:
        """Return the word with its upright box; the rotation, which is mostly near 0, is ignored."""
        box = self.bounding_box
        return LabelledBox(self.word, xywh(box.top_left_x, box.top_left_y, box.width, box.height))


@dataclass(frozen=True)
class RosettaText(Source):
    """Read questions about images whose text is in a file of Rosetta's form."""

    rosetta: str | None = key(None, "Text in the images, in the form of TextVQA_Rosetta_OCR_v0.2_<split>.json.")

    def lookups(self) -> dict[str, Items]:
        return {} if self.rosetta is None else {"rosetta": _rosetta_items(self.rosetta)}

    def text_in(self, image_id: str) -> ImageText:
        """Return the text in an image, flagged `no_ocr` if the file does not have it."""
        if "rosetta" not in self.tables:
            return UNREAD
        words = self.entry("rosetta", image_id, list[RosettaWord], f"rosetta: image {image_id}")
        return NO_OCR if words is None else ImageText([word.labelled() for word in words])


def _rosetta_items(path: str) -> Items:
    for item in json_list(path, "data.item"):
        match item:
            case {"image_id": str() | int() as image_id, "ocr_info": words}:
                yield str(image_id), words
