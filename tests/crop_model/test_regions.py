"""Boxes, frames and patch masks, against the pixels that transformers' image processor really produces."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from crop_model.patches import patch_mask
from crop_model.regions import (
    ImageGeometry,
    RegionError,
    box_to_grid,
    expand_box,
    grid_to_unit,
    sanitize_box,
    union_box,
)

# side of the model input and of a patch: 24, 27 (SigLIP, with pixels to spare), 16, 12 and 8 patches a side
INPUTS = [(336, 14), (384, 14), (128, 8), (96, 8), (64, 8)]
FRAMES = ["padded_square", "cropped", "squashed"]
PAINT = 255


def process(image, frame, side, shortest, resample):
    """The image as transformers' own LLaVA processor hands it to the model: (side, side) of the first channel."""
    size = {"height": side, "width": side} if frame == "squashed" else {"shortest_edge": shortest}
    processor = LlavaImageProcessorPil(
        size=size,
        crop_size={"height": side, "width": side},
        do_center_crop=frame != "squashed",
        do_pad=frame == "padded_square",
        do_rescale=False,
        do_normalize=False,
        resample=resample,
    )
    return np.asarray(processor(image, return_tensors="np")["pixel_values"][0][0])


def painted_image(width, height, box):
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = PAINT
    return Image.fromarray(pixels)


@st.composite
def images_with_boxes(draw):
    width, height = draw(st.integers(20, 700)), draw(st.integers(20, 700))
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x2, y2 = draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))
    return width, height, (x1, y1, x2, y2)


def distance_to_edges(positions, low, high):
    return np.minimum(np.abs(positions - low), np.abs(positions - high))


def compare_with_pixels(pixels, unit, seen, slack):
    """A pixel whose centre is more than `slack` off the box's edges is painted exactly if its centre is inside."""
    centre = np.arange(seen) + 0.5
    x1, y1, x2, y2 = (value * seen for value in unit) if unit else (-9.0, -9.0, -9.0, -9.0)
    inside = ((centre >= y1) & (centre < y2))[:, None] & ((centre >= x1) & (centre < x2))[None, :]
    clear = (distance_to_edges(centre, y1, y2) > slack)[:, None] & (distance_to_edges(centre, x1, x2) > slack)[None, :]
    painted = pixels[:seen, :seen] > 190  # the padding is about 122, bicubic edges lie between
    np.testing.assert_array_equal(painted[clear], inside[clear])
    return painted


@pytest.mark.parametrize("frame", FRAMES)
@settings(max_examples=60, deadline=None)
@given(case=images_with_boxes(), side_and_patch=st.sampled_from(INPUTS), extra=st.sampled_from([0, 0, 32, -16]))
def test_box_follows_the_pixels(frame, case, side_and_patch, extra):
    width, height, box = case
    side, patch = side_and_patch
    shortest = side + (0 if frame == "squashed" else extra)
    geometry = ImageGeometry(frame, (side, side), None if extra == 0 else shortest, patch_size=patch)
    assume(max(width, height) / min(width, height) < 8)
    unit = geometry.to_unit(box, width, height)
    pixels = process(painted_image(width, height, box), frame, side, shortest, Image.Resampling.NEAREST)
    rows = side // patch
    painted = compare_with_pixels(pixels, unit, rows * patch, slack=1e-3)

    painted_patches = torch.from_numpy(painted.reshape(rows, patch, rows, patch).any(axis=(1, 3)).flatten())
    mask = patch_mask(unit, (rows, rows), region_grid=None)
    assert bool((mask | ~painted_patches).all()), "a painted patch is missing from the mask"
    if unit is None:
        assert not painted_patches.any()
        return
    pixel = 1.0 / (rows * patch)  # a patch that the box enters by a whole pixel has a painted pixel
    smaller = (unit[0] + pixel, unit[1] + pixel, unit[2] - pixel, unit[3] - pixel)
    if smaller[0] < smaller[2] and smaller[1] < smaller[3]:
        assert bool((~patch_mask(smaller, (rows, rows), region_grid=None) | painted_patches).all())


@pytest.mark.parametrize("frame", FRAMES)
@settings(max_examples=25, deadline=None)
@given(case=images_with_boxes())
def test_box_follows_the_pixels_with_the_bicubic_filter_of_llava(frame, case):
    width, height, box = case
    geometry = ImageGeometry(frame, (336, 336))
    assume(max(width, height) / min(width, height) < 8)
    scale = 336 / min(width, height)
    unit = geometry.to_unit(box, width, height)
    pixels = process(painted_image(width, height, box), frame, 336, 336, Image.Resampling.BICUBIC)
    slack = 1.5 * max(1.0, scale)  # the filter blurs an edge by about a pixel of the coarser image
    assume((box[2] - box[0]) * scale > 4 * slack and (box[3] - box[1]) * scale > 4 * slack)
    compare_with_pixels(pixels, unit, 336, slack)


@pytest.mark.parametrize("frame", FRAMES)
@given(case=images_with_boxes())
def test_there_and_back(frame, case):
    width, height, box = case
    geometry = ImageGeometry(frame, (336, 336))
    unit = geometry.to_unit(box, width, height)
    if unit is None:
        assert frame == "cropped"
        return
    back = geometry.from_unit(unit, width, height)
    if frame == "cropped":  # what the crop cut off is gone, nothing is added
        assert back[0] >= box[0] - 1e-6 and back[1] >= box[1] - 1e-6
        assert back[2] <= box[2] + 1e-6 and back[3] <= box[3] + 1e-6
        np.testing.assert_allclose(geometry.to_unit(back, width, height), unit, atol=1e-9)
    else:
        np.testing.assert_allclose(back, box, atol=1e-6)


def test_the_frames_in_figures():
    # 640 x 480: padded by 80 above and below; cropped by 80 left and right
    box = (160.0, 120.0, 320.0, 240.0)
    assert ImageGeometry("padded_square", (336, 336)).to_unit(box, 640, 480) == (0.25, 200 / 640, 0.5, 320 / 640)
    assert ImageGeometry("cropped", (336, 336)).to_unit(box, 640, 480) == pytest.approx((56 / 336, 0.25, 0.5, 0.5))
    assert ImageGeometry("squashed", (336, 336)).to_unit(box, 640, 480) == (0.25, 0.25, 0.5, 0.5)
    whole = ImageGeometry("padded_square", (336, 336)).to_unit((0, 0, 640, 480), 640, 480)
    assert box_to_grid(whole) == (0, 1, 7, 6)
    assert ImageGeometry("cropped", (336, 336)).to_unit((0, 0, 60, 480), 640, 480) is None
    with pytest.raises(ValueError, match="frame"):
        ImageGeometry("grid", (336, 336))


@given(st.tuples(*[st.integers(0, 7)] * 4), st.integers(0, 3), st.integers(0, 3))
def test_cells_to_unit_and_back(corners, width, height):
    xmin, ymin = corners[0], corners[1]
    cells = (xmin, ymin, min(xmin + width, 7), min(ymin + height, 7))
    assert box_to_grid(grid_to_unit(cells)) == cells


finite = st.floats(-2000, 2000)


@given(box=st.tuples(finite, finite, finite, finite), width=st.integers(1, 900), height=st.integers(1, 900))
def test_a_sane_box_is_in_the_image_and_has_a_pixel(box, width, height):
    try:
        x1, y1, x2, y2 = sanitize_box(box, width, height)
    except RegionError:
        assert (
            max(box[0], box[2]) <= 0 or max(box[1], box[3]) <= 0 or min(box[::2]) >= width or min(box[1::2]) >= height
        )
        return
    assert 0 <= x1 <= x2 - 1 + 1e-9 and x2 <= width
    assert 0 <= y1 <= y2 - 1 + 1e-9 and y2 <= height
    np.testing.assert_allclose(sanitize_box((x1, y1, x2, y2), width, height), (x1, y1, x2, y2), atol=1e-9)


def test_sane_boxes_by_example():
    assert sanitize_box((30, 40, 10, 20), 100, 100) == (10, 20, 30, 40)
    assert sanitize_box((-5, -5, 20, 20), 100, 100) == (0, 0, 20, 20)
    assert sanitize_box((50, 50, 50, 50), 100, 100) == (49.5, 49.5, 50.5, 50.5)
    assert sanitize_box((0, 0, 0, 5), 100, 100) == (0, 0, 1, 5)


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ((float("nan"), 0, 1, 1), "finite"),
        ((0, 0, float("inf"), 1), "finite"),
        ((100, 0, 120, 10), "outside"),
        ((-20, 0, -1, 10), "outside"),
        ((0, 0, 1), "four numbers"),
        ((0, 0, 1, "one"), "four numbers"),
        (None, "four numbers"),
        (("0", "0", None, "1"), "four numbers"),
    ],
)
def test_a_bad_box_is_refused_in_one_line(box, reason):
    with pytest.raises(RegionError, match=reason) as error:
        sanitize_box(box, 100, 100)
    assert "\n" not in str(error.value)


def test_an_image_without_size_is_refused():
    with pytest.raises(RegionError, match="size"):
        sanitize_box((0, 0, 1, 1), 0, 100)


def test_union():
    assert union_box([(5, 6, 7, 8), (1, 7, 6, 12)]) == (1, 6, 7, 12)
    with pytest.raises(RegionError):
        union_box([])


@given(case=images_with_boxes(), scale=st.floats(1, 4), min_side=st.floats(0, 0.5))
def test_expansion_contains_the_box_and_stays_inside(case, scale, min_side):
    width, height, box = case
    x1, y1, x2, y2 = expand_box(box, width, height, scale, min_side)
    assert -1e-6 <= x1 <= box[0] + 1e-6 and box[2] - 1e-6 <= x2 <= width + 1e-6
    assert -1e-6 <= y1 <= box[1] + 1e-6 and box[3] - 1e-6 <= y2 <= height + 1e-6
    assert x2 - x1 == pytest.approx(min(max(scale * (box[2] - box[0]), min_side * width), width))
    assert y2 - y1 == pytest.approx(min(max(scale * (box[3] - box[1]), min_side * height), height))
