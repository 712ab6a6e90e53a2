"""Describe one question as its source annotates it, before its region is derived.

public file ─► sources/<reader> ─► Question ─► derive ─► row of the region sidecar
                                        └─ or RecordError ─► line of rejected.jsonl
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from crop_model.regions import Box

from .sample import RegionAnnotation

# pixels: of the image as annotated. unit: fractions of its width and height. padded_square: fractions of the square
# that the image is padded to, as LLaVA writes boxes in text.
BoxFrame = Literal["pixels", "unit", "padded_square"]


class LabelledBox(NamedTuple):
    """Hold a word that was read in an image, or the name of an object in it, with its box."""

    text: str
    box: Sequence[float]


@dataclass(slots=True)
class Question:
    """Hold one question about one image, with every annotation that may lead to its region.

    Args:
        image: path relative to the image root; regions refer to this image.
        text, answer: the texts to train on; with an empty answer, only a localizer learns from the question.
        turn: number of the question in its record, from 0.
        kind: type of the question, if the source states it.
        size: width and height that the annotation states.
        frame: coordinate frame of all boxes here.
        boxes: boxes that a person drew, x1, y1, x2, y2, not yet checked.
        answers: the correct answers that text in the image may show; the first is preferred.
        words: text read in the image (OCR), in reading order.
        objects: named objects.
        whole_image: whether the source states that the question needs the whole image.
        joined: the annotation of the same question in its native source.
        flags: defects and doubts that the reader noticed.
        other_images: further images of the record.
    """

    image: str
    text: str
    answer: str = ""
    turn: int = 0
    kind: str | None = None
    size: tuple[int, int] | None = None
    frame: BoxFrame = "pixels"
    boxes: Sequence[Sequence[float]] = ()
    answers: Sequence[str] = ()
    words: Sequence[LabelledBox] = ()
    objects: Sequence[LabelledBox] = ()
    whole_image: bool = False
    joined: RegionAnnotation | None = None
    flags: Sequence[str] = ()
    other_images: Sequence[str] = ()


def to_pixels(box: Sequence[float], frame: BoxFrame, width: int, height: int) -> Box:
    """Convert a box to pixels of an image of `width` x `height`, unclipped.

    A padded square is the image with bars that make its shorter side as long as the longer one, L:

        +-----------+  0
        |  padding  |  (L - height) // 2
        +-----------+
        |   image   |            x = u * L - (L - width) // 2
        +-----------+            y = v * L - (L - height) // 2
        |  padding  |
        +-----------+  L
    """
    x1, y1, x2, y2 = box
    if frame == "pixels":
        return x1, y1, x2, y2
    if frame == "unit":
        return x1 * width, y1 * height, x2 * width, y2 * height
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    return x1 * side - left, y1 * side - top, x2 * side - left, y2 * side - top
