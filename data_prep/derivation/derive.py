"""Derive a question's boxes by the first method of a cascade that yields any, with a score.

1 human          boxes that a person drew for the question
  (joined)       or the annotation of the same question in its native source, with its method
2 ocr_match      text in the image that shows the answer
3 object_match   objects that the question names
4 localizer, 5 zero_shot: filled in later by `data_prep.localize`, for a question without a box
6 global         the whole image
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from crop_model.regions import Box, RegionError, covered_cells, pixels_to_cells, sanitize_box, union_box
from data_prep.schema.question import Question, to_pixels

from .text_match import Match, match_answer, match_objects

# Flags of a row, with their meaning.
FLAGS = {
    # boxes
    "swapped_corners": "corners were in the wrong order and were swapped",
    "oob_clipped": "a box reached beyond the image by more than a pixel and was clipped",
    "degenerate": "a box less than a pixel wide or high was widened to one",
    "duplicate_box": "a repeated box was dropped",
    "bad_box": "a box that is not finite or lies outside the image was dropped",
    "missing_object": "the question names an object that its scene graph does not have",
    "lost_box": "no box of the question could be used",
    # the image file
    "size_mismatch": "the file has another size than its annotation states",
    "exif_rotated": "the file carries an EXIF orientation, which is not applied",
    "format_mismatch": "the file's format is not what its name says",
    "cmyk": "the file is CMYK",
    # the region
    "no_ocr": "the file of text in images has no entry for this image",
    "leak_answer_box": "the answer contains the box: do not show it to a model that must predict it",
    "low_confidence": "several regions matched equally, or the match is weak",
    "agreement": "two methods matched the same region",
    "no_evidence": "no evidence of a region: the whole image is used as a fallback",
}

SAME_REGION_IOU = 0.5
ASPECT_TOLERANCE = 0.01


class DerivedRegion(NamedTuple):
    """Hold the derived columns of a sidecar row."""

    boxes: tuple[Box, ...]
    region: Box | None
    method: str
    score: float
    flags: tuple[str, ...]


def derive(question: Question, width: int, height: int) -> DerivedRegion:
    """Derive the region of a question in an image file of `width` x `height` pixels."""
    flags = list(question.flags)
    if question.joined is not None:
        return _joined_region(question, flags, width, height)
    if question.whole_image:
        return DerivedRegion((), None, "global", 1.0, _unique(flags))
    scale = _scale(question.size, (width, height), flags)
    if scale is not None:
        pixels = _Pixels(question, scale, width, height)
        if (boxes := pixels.sanitized(question.boxes, flags)) is not None:
            return _region(boxes, "human", 1.0, flags)
        by_text = match_answer(question.answers, question.words, question.text) if question.words else None
        by_object = match_objects(question.text, question.objects) if question.objects else None
        matches = [("ocr_match", by_text), ("object_match", by_object)]
        candidates = [region for method, match in matches if match and (region := _matched(method, match, pixels))]
        if candidates:
            return _agreed(candidates, flags, width, height)
    flags += ["lost_box"] if question.boxes else []
    return DerivedRegion((), None, "global", 0.0, _unique([*flags, "no_evidence"]))


@dataclass(slots=True)
class _Pixels:
    """Convert the boxes of a question to pixels of the image file."""

    question: Question
    scale: tuple[float, float]
    width: int
    height: int

    def sanitized(self, boxes: Sequence[Sequence[float]], flags: list[str]) -> tuple[Box, ...] | None:
        """Return the usable boxes, or None; add to `flags` what was wrong with them."""
        usable: dict[Box, None] = {}  # a set that keeps the order
        for box in boxes:
            try:
                annotated = self._in_file(box)
                good = sanitize_box(annotated, self.width, self.height)
            except RegionError:
                flags.append("bad_box")
                continue
            if good != annotated:
                flags += box_flags(annotated, self.width, self.height)
            if good in usable:
                flags.append("duplicate_box")
            usable[good] = None
        return tuple(usable) or None

    def _in_file(self, box: Sequence[float]) -> Box:
        if len(box) != 4:
            raise RegionError(f"box {box!r} is not four numbers x1, y1, x2, y2")
        if self.question.frame != "pixels":  # fractions do not depend on the size
            return to_pixels(box, self.question.frame, self.width, self.height)
        x, y = self.scale
        return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def box_flags(box: Box, width: int, height: int) -> list[str]:
    """Return the flags of the defects that `sanitize_box` corrects."""
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
    """Return the scale from annotated pixels to the file's; None if the shapes differ and no box can be trusted."""
    if stated is None or stated == file:
        return 1.0, 1.0
    flags.append("size_mismatch")
    x, y = file[0] / stated[0], file[1] / stated[1]
    return (x, y) if abs(x / y - 1) <= ASPECT_TOLERANCE else None


def _matched(method: str, match: Match, pixels: _Pixels) -> DerivedRegion | None:
    flags: list[str] = []
    boxes = pixels.sanitized(match.boxes, flags)
    if boxes is None:
        return None
    score = match.score / 2 if match.ambiguous else match.score
    return _region(boxes, method, score, flags, weak=score < 1)


def _region(boxes: tuple[Box, ...], method: str, score: float, flags: list[str], weak: bool = False) -> DerivedRegion:
    return DerivedRegion(boxes, union_box(boxes), method, score, _unique([*flags, *["low_confidence"] * weak]))


def _agreed(candidates: Sequence[DerivedRegion], flags: list[str], width: int, height: int) -> DerivedRegion:
    """Return the first candidate, with a higher score if the other agrees: both wrong is less likely than either."""
    first, *others = candidates
    score, more = first.score, [*flags, *first.flags]
    for other in others:
        if first.region and other.region and grid_iou(first.region, other.region, width, height) >= SAME_REGION_IOU:
            score = 1 - (1 - score) * (1 - other.score)
            more.append("agreement")
    return DerivedRegion(first.boxes, first.region, first.method, score, _unique(more))


def grid_iou(first: Box, second: Box, width: int, height: int) -> float:
    """Compute the intersection over union of two boxes in cells of the 8x8 grid over the un-padded image."""
    one, two = (covered_cells(pixels_to_cells(box, width, height)) for box in (first, second))
    return len(one & two) / len(one | two)


def _joined_region(question: Question, flags: list[str], width: int, height: int) -> DerivedRegion:
    """Convert the question's native annotation to pixels of this source's file of the same image."""
    native = question.joined
    assert native is not None
    scale = _scale((native.width, native.height), (width, height), flags)
    flags = [*native.flags, *flags]
    if scale is None or native.region is None:
        return DerivedRegion((), None, "global", native.score if scale else 0.0, _unique(flags))
    boxes = _Pixels(replace(question, frame="pixels"), scale, width, height).sanitized(native.boxes, flags)
    if boxes is None:
        return DerivedRegion((), None, "global", 0.0, _unique([*flags, "lost_box"]))
    return DerivedRegion(boxes, union_box(boxes), native.method, native.score, _unique(flags))


def _unique(flags: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(flags)))
