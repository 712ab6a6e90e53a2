"""Patch masks against their definition in whole numbers, and the cases that tell most."""

import math
from fractions import Fraction

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crop_model.patches import patch_mask
from crop_model.regions import box_to_grid


@st.composite
def unit_boxes(draw):
    """Unit boxes on a fine lattice of 1/2520, exact as fractions, so that edges on cell borders are frequent."""
    x1, y1 = draw(st.integers(0, 2519)), draw(st.integers(0, 2519))
    x2, y2 = draw(st.integers(x1 + 1, 2520)), draw(st.integers(y1 + 1, 2520))
    return tuple(Fraction(value, 2520) for value in (x1, y1, x2, y2))


def overlaps(low, high, index, count):
    return low < Fraction(index + 1, count) and high > Fraction(index, count)


def slow_patch_mask(box, grid, region_grid):
    """The definition, patch by patch, in exact fractions."""
    x1, y1, x2, y2 = box
    rows, columns = grid
    mask = []
    for row in range(rows):
        for column in range(columns):
            if region_grid is None:
                mask.append(overlaps(x1, x2, column, columns) and overlaps(y1, y2, row, rows))
                continue
            cell_row = math.floor(Fraction(2 * row + 1, 2 * rows) * region_grid[0])
            cell_column = math.floor(Fraction(2 * column + 1, 2 * columns) * region_grid[1])
            mask.append(overlaps(y1, y2, cell_row, region_grid[0]) and overlaps(x1, x2, cell_column, region_grid[1]))
    return torch.tensor(mask)


@settings(max_examples=60, deadline=None)
@given(
    box=unit_boxes(),
    grid=st.sampled_from([(24, 24), (27, 27), (16, 16), (12, 12), (8, 8), (16, 24)]),
    region_grid=st.sampled_from([None, (8, 8), (4, 6)]),
)
def test_patch_mask_is_its_definition(box, grid, region_grid):
    mask = patch_mask(tuple(float(value) for value in box), grid, region_grid)
    assert mask.dtype == torch.bool
    torch.testing.assert_close(mask, slow_patch_mask(box, grid, region_grid))


@given(box=unit_boxes(), side=st.integers(1, 40))
def test_a_region_is_never_empty_and_no_region_always_is(box, side):
    box = tuple(float(value) for value in box)
    assert patch_mask(box, (side, side)).any()
    assert patch_mask(box, (side, side), None).any()
    assert not patch_mask(None, (side, side)).any()


@given(box=unit_boxes())
def test_a_cell_of_8x8_is_3x3_patches_of_24x24(box):
    xmin, ymin, xmax, ymax = box_to_grid(tuple(float(value) for value in box))
    expected = torch.zeros(24, 24, dtype=torch.bool)
    expected[3 * ymin : 3 * ymax + 3, 3 * xmin : 3 * xmax + 3] = True
    assert torch.equal(patch_mask(tuple(float(value) for value in box), (24, 24)), expected.flatten())
