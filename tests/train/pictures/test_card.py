import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from crop_model.regions import ImageGeometry
from train.pictures.card import LINE_HEIGHT, MARGIN, TITLE_HEIGHT, contact_sheet, draw_sample
from train.pictures.panels import EXACT_COLOR, PANEL, REGION_COLOR

GRID = (8, 8)
CELL = PANEL // GRID[0]
SQUARE = ImageGeometry("padded_square", (64, 64))
TOP = MARGIN + TITLE_HEIGHT


def draw(image=None, region=None, slots=None, *, geometry=SQUARE, answer="7", target="7"):
    image = image or Image.new("RGB", (64, 64), "#40c040")
    slots = torch.arange(64) if slots is None else slots
    card = draw_sample(image, region, slots, geometry, GRID, "Which digit?", answer, target)
    pixels = np.asarray(card)
    left = pixels[TOP : TOP + PANEL, MARGIN : MARGIN + PANEL]
    right = pixels[TOP : TOP + PANEL, 2 * MARGIN + PANEL : 2 * MARGIN + 2 * PANEL]
    return left, right, pixels


def is_color(pixels, color):
    return (pixels == ImageColor.getrgb(color)).all(axis=-1)


def bounds(mask):
    """(x0, y0, x1, y1) of the True pixels, inclusive."""
    rows, cols = np.nonzero(mask)
    return cols.min(), rows.min(), cols.max(), rows.max()


@pytest.mark.parametrize(
    ("size", "frame", "region"),
    [
        ((64, 64), "padded_square", (8, 16, 40, 32)),
        ((64, 32), "padded_square", (8, 8, 40, 24)),
        ((32, 64), "squashed", (4, 8, 20, 40)),
    ],
)
def test_the_region_is_outlined_where_it_is_in_both_frames(size, frame, region):
    geometry = ImageGeometry(frame, (64, 64))
    left, right, _ = draw(Image.new("RGB", size, "#40c040"), region, geometry=geometry)
    scale = PANEL / max(size)
    offset_x, offset_y = (PANEL - size[0] * scale) / 2, (PANEL - size[1] * scale) / 2
    x0, y0, x1, y1 = (value * scale for value in region)
    expected = (x0 + offset_x, y0 + offset_y, x1 + offset_x, y1 + offset_y)
    assert bounds(is_color(left, REGION_COLOR)) == pytest.approx(expected, abs=2)
    unit = geometry.to_unit(region, *size)
    assert bounds(is_color(right, REGION_COLOR)) == pytest.approx([value * PANEL for value in unit], abs=2)


def test_no_region_draws_no_outline():
    left, right, pixels = draw(region=None)
    assert not is_color(left, REGION_COLOR).any() and not is_color(right, REGION_COLOR).any()
    assert not is_color(pixels, REGION_COLOR).any()  # nor an entry of the legend


def test_the_image_keeps_its_pixels_in_the_left_panel():
    left, _, _ = draw(Image.new("RGB", (64, 32), "#40c040"))
    assert (left[PANEL // 2 - 3, PANEL // 2 - 3] == ImageColor.getrgb("#40c040")).all()
    assert not is_color(left[: PANEL // 4 - 2], "#40c040").any()  # beside the image, where it is padded


def test_dropped_patches_are_dark_and_single_ones_untouched():
    slots = torch.full((64,), -1)
    slots[9] = 0  # row 1, column 1
    _, right, _ = draw(slots=slots)
    centre = CELL // 2
    assert (right[CELL + centre, CELL + centre] == ImageColor.getrgb("#40c040")).all()
    assert right[3 * CELL + centre, 3 * CELL + centre].max() < 40


def test_outlines_run_between_tokens_and_nowhere_else():
    slots = torch.zeros(8, 8, dtype=torch.long)
    slots[:, 4:] = 1
    slots[0, 0] = 2  # a token of one patch
    _, right, _ = draw(Image.new("RGB", (64, 64), "black"), slots=slots.flatten())
    drawn = right.max(axis=-1) > 0
    expected = np.zeros((PANEL, PANEL), bool)
    expected[:, 4 * CELL] = True
    expected[: CELL + 1, CELL] = expected[CELL, : CELL + 1] = True
    assert (drawn == expected).all()
    assert is_color(right[:CELL, CELL], EXACT_COLOR).all()  # beside the exact patch
    assert not is_color(right[:, 4 * CELL], EXACT_COLOR).any()


def test_a_shared_token_fades_towards_its_mean_colour():
    image = Image.new("RGB", (64, 64), "white")
    image.paste("black", (0, 0, 64, 32))
    _, alone, _ = draw(image, slots=torch.arange(64))
    _, shared, _ = draw(image, slots=torch.zeros(64, dtype=torch.long))
    at = CELL // 2  # in a black patch
    assert alone[at, at].max() == 0
    assert 60 < shared[at, at].max() < 140


def test_slots_of_another_grid_are_refused():
    with pytest.raises(ValueError, match="9 patches"):
        draw(slots=torch.zeros(9, dtype=torch.long))


@pytest.mark.parametrize(("answer", "is_right"), [("7", True), (" 7.", True), ("8", False)])
def test_a_right_answer_is_green_a_wrong_one_red(answer, is_right):
    _, _, pixels = draw(answer=answer, target="7")
    text = pixels[TOP + PANEL + 2 * LINE_HEIGHT :].astype(int)
    greener = text[..., 1] - text[..., 0]
    assert bool(greener.max() > 60) is is_right  # letters have soft edges: no pixel need be the colour itself
    assert bool(greener.min() < -60) is not is_right


def test_a_long_question_makes_the_picture_higher_not_wider():
    image = Image.new("RGB", (64, 64))
    short = draw_sample(image, None, torch.arange(64), SQUARE, GRID, "Why?", "7", None)
    long = draw_sample(image, None, torch.arange(64), SQUARE, GRID, "Why is it so? " * 40, "7", None)
    assert long.width == short.width and long.height > short.height


def test_contact_sheet_places_pictures_in_rows():
    colors = ["#ff0000", "#00ff00", "#0000ff"]
    sheet = contact_sheet([Image.new("RGB", (30, 20), color) for color in colors], columns=2)
    assert sheet.size == (60, 40)
    for color, (x, y) in zip(colors, [(5, 5), (35, 5), (5, 25)], strict=True):
        assert sheet.getpixel((x, y)) == ImageColor.getrgb(color)


@pytest.mark.parametrize(("pictures", "columns"), [([], 2), ([Image.new("RGB", (4, 4))], 0)])
def test_an_empty_contact_sheet_is_refused(pictures, columns):
    with pytest.raises(ValueError):
        contact_sheet(pictures, columns)
