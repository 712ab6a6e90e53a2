"""The cascade over random boxes, images and frames, against masks of pixels and images that are really padded."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, event, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.derivation.derive import FLAGS, DerivedRegion, derive, grid_iou
from data_prep.schema.question import BoxFrame, LabelledBox, Question, to_pixels
from data_prep.schema.sample import REGION_METHODS, RegionAnnotation

IntBox = tuple[int, int, int, int]
FRAMES: tuple[BoxFrame, ...] = ("pixels", "unit", "padded_square")
sides = st.integers(1, 90)
any_boxes = st.lists(
    st.tuples(*[st.floats(-200, 200) | st.floats(-1, 2) | st.sampled_from([math.nan, math.inf, 1e308])] * 4), max_size=4
)
texts = st.sampled_from(["5", "cat", "cats", "total", "dog", ""])
located = st.builds(lambda text, box: LabelledBox(text, box[0]), texts, any_boxes.filter(len))
GLOBAL = DerivedRegion((), None, "global", 1.0, ())


def question(**given: Any) -> Question:
    return Question("a.png", "How much is the total of the cat?", **given)


@st.composite
def int_boxes(draw: st.DrawFn, width: int, height: int, beyond: int = 0) -> IntBox:
    """Corners at least a pixel apart in both directions, in any order, up to `beyond` pixels outside the image."""
    x = draw(st.lists(st.integers(-beyond, width + beyond), min_size=2, max_size=2, unique=True))
    y = draw(st.lists(st.integers(-beyond, height + beyond), min_size=2, max_size=2, unique=True))
    return (x[0], y[0], x[1], y[1]) if beyond else (min(x), min(y), max(x), max(y))


@st.composite
def images_with_boxes(draw: st.DrawFn, beyond: int = 0) -> tuple[int, int, list[IntBox]]:
    width, height = draw(sides), draw(sides)
    return width, height, draw(st.lists(int_boxes(width, height, beyond), min_size=1, max_size=4))


def painted(box: IntBox, width: int, height: int) -> np.ndarray:
    """The pixels of a box in its image."""
    mask = np.zeros((height, width), dtype=bool)
    x1, x2, y1, y2 = *sorted((box[0], box[2])), *sorted((box[1], box[3]))
    mask[max(y1, 0) : max(y2, 0), max(x1, 0) : max(x2, 0)] = True
    return mask


def bounds(mask: np.ndarray) -> IntBox:
    """Of the pixels that are set, half-open."""
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@settings(max_examples=100, deadline=None)
@given(case=images_with_boxes(beyond=9))
def test_region_is_what_the_boxes_paint(case: tuple[int, int, list[IntBox]]) -> None:
    width, height, boxes = case
    masks = [painted(box, width, height) for box in boxes]
    seen = [bounds(mask) for mask in masks if mask.any()]
    used = [box for box, mask in zip(boxes, masks, strict=True) if mask.any()]
    place = derive(question(boxes=boxes), width, height)
    event(f"{len(used)} of {len(boxes)} boxes in the image")
    assert ("bad_box" in place.flags) == (len(used) < len(boxes))
    if not used:
        assert place == DerivedRegion((), None, "global", 0.0, ("bad_box", "lost_box", "no_evidence"))
        return
    assert (place.region, place.boxes) == (bounds(np.logical_or.reduce(masks)), tuple(dict.fromkeys(seen)))
    assert (place.method, place.score) == ("human", 1.0)
    assert ("duplicate_box" in place.flags) == (len(set(seen)) < len(seen))
    assert ("swapped_corners" in place.flags) == any(x1 > x2 or y1 > y2 for x1, y1, x2, y2 in used)
    reach = [max(-min(box), max(box[0::2]) - width, max(box[1::2]) - height) for box in used]
    assert ("oob_clipped" in place.flags) == (max(reach) > 1)
    assert "degenerate" not in place.flags


@settings(max_examples=100, deadline=None)
@given(
    size=st.tuples(sides, sides),
    stated=st.none() | st.tuples(sides, sides),
    frame=st.sampled_from(FRAMES),
    boxes=any_boxes,
    words=st.lists(located, max_size=3),
    objects=st.lists(located, max_size=3),
    whole_image=st.booleans(),
)
def test_containment_whatever_the_evidence(size: tuple[int, int], **evidence: Any) -> None:
    stated = evidence.pop("stated")
    place = derive(question(size=stated, answers=["5"], **evidence), *size)
    event(place.method)
    assert place.method in REGION_METHODS
    assert 0 <= place.score <= 1
    assert list(place.flags) == sorted(set(place.flags))
    assert set(place.flags) <= FLAGS.keys()
    assert (place.region is None) == (place.method == "global") == (not place.boxes)
    for box in place.boxes:
        assert place.region is not None
        x1, y1, x2, y2 = box
        assert x2 - x1 > 1 - 1e-9
        assert y2 - y1 > 1 - 1e-9
        assert 0 <= place.region[0] <= x1
        assert 0 <= place.region[1] <= y1
        assert x2 <= place.region[2] <= size[0]
        assert y2 <= place.region[3] <= size[1]


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(size=st.tuples(sides, sides), frame=st.sampled_from(FRAMES), boxes=any_boxes)
def test_a_row_s_own_boxes_derive_the_same_row(size: tuple[int, int], frame: BoxFrame, boxes: Any) -> None:
    first = derive(question(frame=frame, boxes=boxes), *size)
    assume(first.region is not None)
    again = derive(question(size=size, boxes=first.boxes), *size)
    assert again.region == pytest.approx(first.region)
    assert again.boxes == tuple(pytest.approx(box) for box in first.boxes)
    assert not {"swapped_corners", "oob_clipped", "bad_box", "duplicate_box"} & set(again.flags)


@settings(max_examples=100, deadline=None)
@given(case=images_with_boxes())
def test_padded_square_is_the_image_padded(case: tuple[int, int, list[IntBox]]) -> None:
    width, height, (box, *_) = case
    side = max(width, height)
    square = Image.new("1", (side, side))
    square.paste(Image.fromarray(painted(box, width, height)), ((side - width) // 2, (side - height) // 2))
    x1, y1, x2, y2 = (corner / side for corner in bounds(np.asarray(square)))
    assert to_pixels((x1, y1, x2, y2), "padded_square", width, height) == pytest.approx(box)
    wrong = to_pixels((x1, y1, x2, y2), "unit", width, height)
    assert (wrong == pytest.approx(box)) == (width == height)  # the two frames are one on a square only
    fractions = (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
    assert to_pixels(fractions, "unit", width, height) == pytest.approx(box)


@settings(max_examples=100, deadline=None)
@given(case=images_with_boxes(), factor=st.integers(2, 5), frame=st.sampled_from(FRAMES))
@example(case=(49, 49, [(0, 0, 1, 1)]), factor=2, frame="unit")  # 1 / 49 * 49 is below 1
def test_a_smaller_file_of_the_annotated_image(
    case: tuple[int, int, list[IntBox]], factor: int, frame: BoxFrame
) -> None:
    """Pixels follow the file's size; fractions are the same of both."""
    width, height, boxes = case
    stated, scale = (factor * width, factor * height), factor if frame == "pixels" else 1
    drawn = [tuple(scale * corner for corner in box) for box in boxes]
    if frame != "pixels":
        assume(width == height)  # where both frames of fractions are one
        drawn = [tuple(corner / width for corner in box) for box in boxes]
    place = derive(question(size=stated, frame=frame, boxes=drawn), width, height)
    expected = derive(question(size=(width, height), boxes=boxes), width, height)
    assert place.region == pytest.approx(expected.region)
    assert place.flags == tuple(sorted({*expected.flags, "size_mismatch"}))


def test_a_file_of_another_shape_gets_no_box() -> None:
    evidence = {"boxes": [(1, 1, 9, 9)], "answers": ["5"], "words": [LabelledBox("5", (1, 1, 9, 9))]}
    place = derive(question(size=(100, 50), **evidence), 100, 52)  # 4 % off
    assert place == DerivedRegion((), None, "global", 0.0, ("lost_box", "no_evidence", "size_mismatch"))
    assert derive(question(size=(1000, 501), **evidence), 100, 50).method == "human"  # rounding of a resized image


def cells(box: IntBox, width: int, height: int) -> set[tuple[int, int]]:
    """The cells of the 8x8 grid that share area with a box, each tried."""
    x1, y1, x2, y2 = (8 * corner for corner in box)
    return {
        (x, y)
        for x in range(8)
        for y in range(8)
        if x1 < (x + 1) * width and x2 > x * width and y1 < (y + 1) * height and y2 > y * height
    }


@settings(max_examples=100, deadline=None)
@given(case=images_with_boxes())
def test_two_methods_that_agree_are_surer(case: tuple[int, int, list[IntBox]]) -> None:
    width, height, boxes = case
    read, drawn = boxes[0], boxes[-1]
    first, second = cells(read, width, height), cells(drawn, width, height)
    overlap = len(first & second) / len(first | second)
    assert grid_iou(read, drawn, width, height) == pytest.approx(overlap)
    # "5" twice at one place: half of 1. Two kinds of objects: 1 over 2.
    words, objects = [LabelledBox("5", read)] * 2, [LabelledBox("cat", drawn), LabelledBox("total", drawn)]
    both = derive(question(answers=["5"], words=words, objects=objects), width, height)
    event(f"agreement {overlap >= 0.5}")
    assert (both.method, both.region) == ("ocr_match", read)
    assert both.score == (1 - 0.5 * 0.5 if overlap >= 0.5 else 0.5)
    assert ("agreement" in both.flags) == (overlap >= 0.5)


WORDS = [LabelledBox("5", (10, 10, 20, 20)), LabelledBox("7", (30, 30, 40, 40)), LabelledBox("7", (50, 50, 60, 60))]
CAT = LabelledBox("cat", (40, 0, 90, 50))


@pytest.mark.parametrize(
    ("evidence", "place"),
    [
        ({"whole_image": True, "boxes": [(1, 1, 9, 9)], "objects": [CAT]}, GLOBAL),
        ({}, GLOBAL._replace(score=0.0, flags=("no_evidence",))),
        # a person's box is not asked for a second opinion
        (
            {"boxes": [(1, 1, 9, 9)], "answers": ["5"], "words": WORDS, "objects": [CAT]},
            DerivedRegion(((1, 1, 9, 9),), (1, 1, 9, 9), "human", 1.0, ()),
        ),
        # lost, it gives way to the text
        (
            {"boxes": [(math.nan, 1, 9, 9), (1, 1)], "answers": ["5"], "words": WORDS},
            DerivedRegion(((10, 10, 20, 20),), (10, 10, 20, 20), "ocr_match", 1.0, ("bad_box",)),
        ),
        # text goes before objects, which lie elsewhere
        (
            {"answers": ["5"], "words": WORDS, "objects": [CAT]},
            DerivedRegion(((10, 10, 20, 20),), (10, 10, 20, 20), "ocr_match", 1.0, ()),
        ),
        # "7" at two places: half as sure
        (
            {"answers": ["7"], "words": WORDS},
            DerivedRegion(((30, 30, 40, 40),), (30, 30, 40, 40), "ocr_match", 0.5, ("low_confidence",)),
        ),
        # no such text: the cat; of two cats both, half as sure
        (
            {"answers": ["9"], "words": WORDS, "objects": [CAT]},
            DerivedRegion((CAT.box,), CAT.box, "object_match", 1.0, ()),
        ),
        (
            {"objects": [CAT, LabelledBox("cats", (0, 0, 9, 9))]},
            DerivedRegion((CAT.box, (0, 0, 9, 9)), (0, 0, 90, 50), "object_match", 0.5, ("low_confidence",)),
        ),
        # one letter of five misread: similar, not the same
        (
            {"answers": ["house"], "words": [LabelledBox("hause", (10, 10, 20, 20))]},
            DerivedRegion(((10, 10, 20, 20),), (10, 10, 20, 20), "ocr_match", 0.8, ("low_confidence",)),
        ),
        # text outside the image is no evidence, an object is
        (
            {"answers": ["8"], "words": [LabelledBox("8", (200, 0, 210, 10))], "objects": [CAT]},
            DerivedRegion((CAT.box,), CAT.box, "object_match", 1.0, ()),
        ),
        # less than a pixel wide: 5 +- 0.5
        (
            {"boxes": [(5, 1, 5, 9)]},
            DerivedRegion(((4.5, 1, 5.5, 9),), (4.5, 1, 5.5, 9), "human", 1.0, ("degenerate",)),
        ),
    ],
)
def test_cascade_by_hand(evidence: dict[str, Any], place: DerivedRegion) -> None:
    counted = replace(question(), text="Where is the cat?", **evidence)  # "how much" does not count
    assert derive(counted, 100, 80) == place


def native(**changes: Any) -> RegionAnnotation:
    box = (10.0, 20.0, 30.0, 40.0)
    row = RegionAnnotation(
        "0", "gqa", "a.jpg", 0, "q", 100, 80, [box, (0.0, 0.0, 4.0, 4.0)], box, "human", 0.75, ["cmyk"]
    )
    return replace(row, **changes)


def test_joined_place_is_the_native_one() -> None:
    """Its union is made anew, and the evidence of the joining source is not asked."""
    place = derive(question(joined=native(), boxes=[(1, 1, 2, 2)], flags=["leak_answer_box"]), 100, 80)
    boxes = ((10, 20, 30, 40), (0, 0, 4, 4))
    assert place == DerivedRegion(boxes, (0, 0, 30, 40), "human", 0.75, ("cmyk", "leak_answer_box"))


def test_joined_place_follows_the_file() -> None:
    # 100x80 to 50x40: half of all; 0..4 becomes 0..2
    place = derive(question(joined=native()), 50, 40)
    assert place.boxes == ((5, 10, 15, 20), (0, 0, 2, 2))
    assert place.flags == ("cmyk", "size_mismatch")
    # Another shape: no box can be trusted, nor that there was none.
    for joined in (native(), native(boxes=[], region=None, method="global")):
        assert derive(question(joined=joined), 50, 50) == DerivedRegion(
            (), None, "global", 0.0, ("cmyk", "size_mismatch")
        )


def test_joined_place_may_be_the_whole_image() -> None:
    whole = native(boxes=[], region=None, method="global", score=1.0, flags=[])
    assert derive(question(joined=whole), 100, 80) == GLOBAL
