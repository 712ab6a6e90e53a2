"""Boxes in text, and which frame they are in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.derivation.text_boxes import MIN_VIOLATIONS, FrameTest, find_boxes

sizes = st.tuples(st.integers(50, 2000), st.integers(50, 2000)).filter(
    lambda size: min(size) < 0.9 * max(size)  # far enough from square to tell
)


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("the dog [0.12, 0.30, 0.45, 0.98].", [(0.12, 0.3, 0.45, 0.98)]),
        ("[0.123,0.2,1.0,1] and[ 0 , .5 , 1 , .75 ]", [(0.123, 0.2, 1.0, 1.0), (0.0, 0.5, 1.0, 0.75)]),
        ("[12, 30, 45, 98]", []),  # pixels, or a list
        ("[0, 1, 0, 1]", []),  # a palindrome
        ("[1.0, 0.0, 0.0, 1.0]", []),  # from right to left
        ("[0.0, 0.5, 0.0, 0.5]", []),
        ("[0, 0, 1, 1]", []),
        ("[0, 0, 0.5, 1]", []),
        ("[0, 0, .5, .5]", [(0.0, 0.0, 0.5, 0.5)]),
        ("[0.1, 0.2, 0.3]", []),
        ("[0.1, 0.2, 0.3, 0.4, 0.5]", []),
        ("[2.1, 0.2, 0.3, 0.4]", []),
        ("[0.1, -0.2, 0.3, 0.4]", []),
        ("(0.1, 0.2, 0.3, 0.4)", []),
        ("[0.1, 0.2, 0.3, nan]", []),
        ("", []),
    ],
)
def test_find_boxes(text, boxes) -> None:
    assert find_boxes(text) == boxes


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=4), st.sampled_from([2, 3]), st.text("a[], 0.", max_size=9))
def test_what_is_written_is_found(boxes, decimals, between) -> None:
    written = [f"[{', '.join(f'{value:.{decimals}f}' for value in box)}]" for box in boxes]
    assert find_boxes(f" and{between}x".join(written)) == [
        box
        for box in (tuple(round(value, decimals) for value in box) for box in boxes)
        if box[0] < box[2] and box[1] < box[3]
    ]


def padded(box, width, height):
    """Fractions of the square around an image, of a box in fractions of the image; two decimals."""
    side = max(width, height)
    x, y = (side - width) / 2, (side - height) / 2
    u1, v1, u2, v2 = box
    corners = (u1 * width + x) / side, (v1 * height + y) / side, (u2 * width + x) / side, (v2 * height + y) / side
    return tuple(round(value, 2) for value in corners)


@given(st.lists(st.tuples(sizes, st.tuples(*[st.floats(0, 1)] * 4)), min_size=1, max_size=50))
def test_boxes_on_the_padded_square_never_look_like_others(images) -> None:
    test = FrameTest()
    for (width, height), box in images:
        test.add([padded(box, width, height)], width, height)
    assert (test.boxes, test.violations, test.frame) == (len(images), 0, "padded_square")


@given(st.lists(sizes, min_size=MIN_VIOLATIONS, max_size=50))
def test_boxes_of_whole_images_tell(images) -> None:
    test = FrameTest()
    for width, height in images:
        test.add([(0.0, 0.0, 1.0, 1.0)], width, height)
    assert (test.boxes, test.violations, test.frame) == (len(images), len(images), "unit")


# Boxes in the band of a 200 x 100 image, y from .25 to .75, and some beyond it: 8 of 800 are 1 %, which is taken for
# errors of the annotators; 9 of 801 are more. Four are too few to tell, of however many.
@pytest.mark.parametrize(
    ("within", "beyond", "frame"),
    [(99, 0, "padded_square"), (792, 8, "padded_square"), (792, 9, "unit"), (0, 4, "padded_square"), (0, 5, "unit")],
)
def test_one_in_a_hundred_and_four_at_all_may_err(within, beyond, frame) -> None:
    test = FrameTest()
    test.add([(0.0, 0.3, 1.0, 0.7)] * within + [(0.0, 0.1, 1.0, 0.9)] * beyond, 200, 100)
    assert test.frame == frame


def test_square_images_and_none_tell_nothing() -> None:
    test = FrameTest()
    test.add([(0.0, 0.0, 1.0, 1.0)] * 10, 100, 100)
    test.add([(0.0, 0.0, 1.0, 1.0)] * 10, 100, 98)
    assert (test.boxes, test.violations, test.frame) == (0, 0, "padded_square")
