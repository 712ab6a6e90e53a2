"""The cascade: which box a question gets, by which method, how sure.

    1 human          boxes that a person drew for the question
      (joined)       or the annotation of the same question in its native source, whatever its method
    2 ocr_match      text in the image that shows the answer
    3 object_match   objects that the question names
    4 localizer, 5 zero_shot: filled in later, where this leaves a question without a box
    6 global         the whole image

Flags of a row, each with what it says:
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from crop_model.regions import Box, RegionError, covered_cells, pixels_to_cells, sanitize_box, union_box
from data_prep.schema.question import Question, to_pixels

from .text_match import Match, match_answer, match_objects

FLAGS = {
    # of boxes
    "swapped_corners": "corners were in the wrong order and were put right",
    "oob_clipped": "a box reached beyond the image by more than a pixel and was clipped",
    "degenerate": "a box less than a pixel wide or high was widened to one",
    "duplicate_box": "the same box more than once; once kept",
    "bad_box": "a box that is not finite or lies outside the image was dropped",
    "missing_object": "the question names an object that its scene graph does not have",
    "lost_box": "no box of the question could be used",
    # of the image file
    "size_mismatch": "the file has another size than its annotation says",
    "exif_rotated": "the file carries an EXIF orientation, which is not applied",
    "format_mismatch": "the file's format is not what its name says",
    "cmyk": "the file is CMYK",
    # of the region
    "no_ocr": "the file of text in images does not know this image",
    "leak_answer_box": "the box stands in the answer: do not show it to a model that is asked for it",
    "low_confidence": "several places matched equally, or the match is weak",
    "agreement": "two methods found the same place",
    "no_evidence": "nothing told a place: the region is the whole image for want of better",
}

SAME_PLACE_IOU = 0.5
ASPECT_TOLERANCE = 0.01


class Place(NamedTuple):
    """Where the answer is to be seen: the derived columns of a sidecar row."""

    boxes: tuple[Box, ...]
    region: Box | None
    method: str
    score: float
    flags: tuple[str, ...]


def derive(question: Question, width: int, height: int) -> Place:
    """The place of a question in an image file of `width` x `height` pixels."""
    flags = list(question.flags)
    if question.joined is not None:
        return _joined_place(question, flags, width, height)
    if question.whole_image:
        return Place((), None, "global", 1.0, _unique(flags))
    scale = _scale(question.size, (width, height), flags)
    if scale is not None:
        pixels = _Pixels(question, scale, width, height)
        if (boxes := pixels.sanitized(question.boxes, flags)) is not None:
            return _place(boxes, "human", 1.0, flags)
        by_text = match_answer(question.answers, question.words, question.text) if question.words else None
        by_object = match_objects(question.text, question.objects) if question.objects else None
        matches = [("ocr_match", by_text), ("object_match", by_object)]
        places = [place for method, match in matches if match and (place := _matched(method, match, pixels))]
        if places:
            return _agreed(places, flags, width, height)
    flags += ["lost_box"] if question.boxes else []
    return Place((), None, "global", 0.0, _unique([*flags, "no_evidence"]))


@dataclass(slots=True)
class _Pixels:
    """From the boxes of a question to pixels of the image file."""

    question: Question
    scale: tuple[float, float]
    width: int
    height: int

    def sanitized(self, boxes: Sequence[Sequence[float]], flags: list[str]) -> tuple[Box, ...] | None:
        """The boxes that can be used, or None; what was wrong with them is added to `flags`."""
        kept: dict[Box, None] = {}  # a set that keeps the order
        for box in boxes:
            try:
                annotated = self._in_file(box)
                good = sanitize_box(annotated, self.width, self.height)
            except RegionError:
                flags.append("bad_box")
                continue
            if good != annotated:
                flags += box_flags(annotated, self.width, self.height)
            if good in kept:
                flags.append("duplicate_box")
            kept[good] = None
        return tuple(kept) or None

    def _in_file(self, box: Sequence[float]) -> Box:
        if len(box) != 4:
            raise RegionError(f"box {box!r} is not four numbers x1, y1, x2, y2")
        if self.question.frame != "pixels":  # fractions do not depend on the size
            return to_pixels(box, self.question.frame, self.width, self.height)
        x, y = self.scale
        return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def box_flags(box: Box, width: int, height: int) -> list[str]:
    """What `sanitize_box` will have put right."""
    x1, y1, x2, y2 = box
    flags = []
    if x1 > x2 or y1 > y2:
        flags.append("swapped_corners")
    if min(x1, x2) < -1 or min(y1, y2) < -1 or max(x1, x2) > width + 1 or max(y1, y2) > height + 1:
        flags.append("oob_clipped")  # up to a pixel is rounding
    if min(abs(x2 - x1), abs(y2 - y1)) < 1 - 1e-6:  # a pixel may come from a fraction
        flags.append("degenerate")
    return flags


def _scale(stated: tuple[int, int] | None, file: tuple[int, int], flags: list[str]) -> tuple[float, float] | None:
    """From annotated pixels to the file's; None where the two images have another shape: no box can be trusted."""
    if stated is None or stated == file:
        return 1.0, 1.0
    flags.append("size_mismatch")
    x, y = file[0] / stated[0], file[1] / stated[1]
    return (x, y) if abs(x / y - 1) <= ASPECT_TOLERANCE else None


def _matched(method: str, match: Match, pixels: _Pixels) -> Place | None:
    flags: list[str] = []
    boxes = pixels.sanitized(match.boxes, flags)
    if boxes is None:
        return None
    score = match.score / 2 if match.ambiguous else match.score
    return _place(boxes, method, score, flags, weak=score < 1)


def _place(boxes: tuple[Box, ...], method: str, score: float, flags: list[str], weak: bool = False) -> Place:
    return Place(boxes, union_box(boxes), method, score, _unique([*flags, *["low_confidence"] * weak]))


def _agreed(places: Sequence[Place], flags: list[str], width: int, height: int) -> Place:
    """The first place; surer where the second method found the same one: both wrong is less likely than either."""
    first, *others = places
    score, more = first.score, [*flags, *first.flags]
    for other in others:
        if first.region and other.region and grid_iou(first.region, other.region, width, height) >= SAME_PLACE_IOU:
            score = 1 - (1 - score) * (1 - other.score)
            more.append("agreement")
    return Place(first.boxes, first.region, first.method, score, _unique(more))


def grid_iou(first: Box, second: Box, width: int, height: int) -> float:
    """Intersection over union of two boxes in cells of the 8x8 grid over the un-padded image."""
    one, two = (covered_cells(pixels_to_cells(box, width, height)) for box in (first, second))
    return len(one & two) / len(one | two)


def _joined_place(question: Question, flags: list[str], width: int, height: int) -> Place:
    """The native annotation of the question, in pixels of this source's file of the same image."""
    native = question.joined
    assert native is not None
    scale = _scale((native.width, native.height), (width, height), flags)
    flags = [*native.flags, *flags]
    if scale is None or native.region is None:
        return Place((), None, "global", native.score if scale else 0.0, _unique(flags))
    found = _Pixels(replace(question, frame="pixels"), scale, width, height).sanitized(native.boxes, flags)
    if found is None:
        return Place((), None, "global", 0.0, _unique([*flags, "lost_box"]))
    return Place(found, union_box(found), native.method, native.score, _unique(flags))


def _unique(flags: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(flags)))
