"""Map boxes between frames and the region grid: from a box in an image to the cells that it covers. Plain Python.

A box is stored in pixels of the original, un-rotated image: (x1, y1, x2, y2), half-open. The vision tower's input
depends on the preprocessing, so the box follows the pixels into the frame of the model input, and has unit coordinates
there:

    original (w=8, h=4)   padded_square         cropped               squashed
    +--------------+      +--------------+      . . +------+ . .      +------+
    |    [##]      |      |/// padding //|      .   |[#]   |   .      | []   |
    |    [##]      |      +--------------+      .   |[#]   |   .      | []   |
    +--------------+      |    [##]      |      . . +------+ . .      | []   |
                          |    [##]      |       shortest side        | []   |
                          +--------------+       resized, centre      +------+
                          |/// padding //|       kept: a box may be    both sides resized
                          +--------------+       cut, or lost

and from unit coordinates to the region grid, and in `patches.py` on to the patch grid.

The 8x8 region grid of inclusive, 0-based indices is the CROP paper's; everything else is this project's design.
"""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Box = tuple[float, float, float, float]
Cells = tuple[int, int, int, int]
Frame = Literal["padded_square", "cropped", "squashed"]

FRAMES = get_args(Frame)
REGION_GRID = (8, 8)
WHOLE_IMAGE: Cells = (0, 0, REGION_GRID[1] - 1, REGION_GRID[0] - 1)
_EPSILON = 1e-6  # in cells: a box that ends on a cell's edge does not touch the next cell


class RegionError(ValueError):
    """Report a box that cannot stand for a region of its image."""


def sanitize_box(box: Sequence[float], width: float, height: float) -> Box:
    """Order a box's corners, clip it to the image and make it at least one pixel wide and high.

    Args:
        box: x1, y1, x2, y2 in pixels of an image of `width` x `height` pixels; corners may be swapped.

    Raises:
        RegionError: not four numbers, a number that is not finite, or a box wholly outside the image.
    """
    if not (width >= 1 and height >= 1):
        raise RegionError(f"box {box!r}: the image's size {width} x {height} is not at least 1 x 1 pixel")
    try:
        x1, y1, x2, y2 = map(float, box)
    except (TypeError, ValueError) as error:
        raise RegionError(f"box {box!r} is not four numbers x1, y1, x2, y2") from error
    if not (math.isfinite(x1) and math.isfinite(y1) and math.isfinite(x2) and math.isfinite(y2)):
        raise RegionError(f"box {box!r} has a number that is not finite")
    horizontal = _clip_interval(min(x1, x2), max(x1, x2), float(width))
    vertical = _clip_interval(min(y1, y2), max(y1, y2), float(height))
    if horizontal is None or vertical is None:
        raise RegionError(f"box {box!r} lies outside its image of {width} x {height} pixels")
    return horizontal[0], vertical[0], horizontal[1], vertical[1]


def region_in_pixels(region: Box | Mapping[str, Sequence[int]], width: int, height: int) -> Box | None:
    """Convert {"cells": cells of `REGION_GRID`} to a box in pixels, and return a box as it is, not yet checked.

    Returns:
        None for all cells, which mean no region.

    Raises:
        RegionError: another key, not four whole numbers, a first cell behind the last one, or a cell outside the grid.
    """
    if not isinstance(region, Mapping):
        return region
    if set(region) != {"cells"}:
        raise RegionError(f"region {region!r}: the only key is `cells`")
    cells = region["cells"]
    try:
        xmin, ymin, xmax, ymax = map(operator.index, cells)
    except (TypeError, ValueError) as error:
        raise RegionError(f"cells {cells!r} are not four whole numbers xmin, ymin, xmax, ymax") from error
    rows, columns = REGION_GRID
    if not (0 <= xmin <= xmax < columns and 0 <= ymin <= ymax < rows):
        raise RegionError(f"cells {cells!r} are no box of the grid of {rows} x {columns} cells, counted from 0")
    whole = (xmin, ymin, xmax, ymax) == WHOLE_IMAGE
    return None if whole else cells_to_pixels((xmin, ymin, xmax, ymax), width, height)


def union_box(boxes: Sequence[Box]) -> Box:
    """Return the smallest box around all of `boxes`. RegionError if there is none."""
    if not boxes:
        raise RegionError("no box to build a region from")
    x1, y1, x2, y2 = zip(*boxes, strict=True)
    return min(x1), min(y1), max(x2), max(y2)


def expand_box(box: Box, width: float, height: float, scale: float = 1.0, min_side: float = 0.0) -> Box:
    """Scale both sides of a box about its centre, and move it inside the image if it would leave it.

    Width and height become at least `min_side`, a fraction of the image's.
    """
    x1, x2 = _expand_interval(box[0], box[2], width, scale, min_side)
    y1, y2 = _expand_interval(box[1], box[3], height, scale, min_side)
    return x1, y1, x2, y2


@dataclass(frozen=True)
class ImageGeometry:
    """Map an image to the model input: pad, resize, crop, as transformers' PIL processors do it.

    Args:
        frame: `padded_square` (LLaVA-1.5's own), `cropped` (CLIP's default) or `squashed`.
        input_size: height and width of the model input, in pixels.
        resized_shortest: the shortest side after resizing and before the centre crop (`size["shortest_edge"]`);
            None: the model input's own shortest side. Without meaning for `squashed`.
        patch_size: side of the vision tower's patches, in pixels. If it does not divide the input (SigLIP: 27 x 14 of
            384 pixels), no patch covers the last pixels, and unit coordinates end with the patches.
    """

    frame: Frame
    input_size: tuple[int, int]
    resized_shortest: int | None = None
    patch_size: int = 1

    def __post_init__(self) -> None:
        if self.frame not in FRAMES:
            raise ValueError(f"frame: {self.frame!r} is none of {', '.join(FRAMES)}")

    def to_unit(self, box: Box, width: int, height: int) -> Box | None:
        """Map a box to unit coordinates of the model input, clipped to it; None if the crop removed it altogether."""
        horizontal, vertical = self._axes(width, height)
        x1, x2 = (min(max(horizontal.to_unit(x), 0.0), 1.0) for x in (box[0], box[2]))
        y1, y2 = (min(max(vertical.to_unit(y), 0.0), 1.0) for y in (box[1], box[3]))
        if x2 - x1 <= 0.0 or y2 - y1 <= 0.0:
            return None
        return x1, y1, x2, y2

    def from_unit(self, unit_box: Box, width: int, height: int) -> Box:
        """Map a box of the model input to pixels of the original image.

        It is clipped to the image: a box wholly in the padding gets no area, on the image's nearest edge.
        """
        horizontal, vertical = self._axes(width, height)
        x1, x2 = (min(max(horizontal.from_unit(x), 0.0), float(width)) for x in (unit_box[0], unit_box[2]))
        y1, y2 = (min(max(vertical.from_unit(y), 0.0), float(height)) for y in (unit_box[1], unit_box[3]))
        return x1, y1, x2, y2

    def _axes(self, width: int, height: int) -> tuple["_Axis", "_Axis"]:
        """Return the maps along x and along y."""
        size, target = (width, height), self.input_size[::-1]
        canvas, resized = size, target
        if self.frame == "padded_square":
            canvas = (max(size), max(size))
        if self.frame != "squashed":
            resized = _resize_shortest(*canvas, self.resized_shortest or min(target))
        horizontal, vertical = (
            _Axis((canvas[i] - size[i]) // 2, canvas[i], resized[i], target[i], self.patch_size) for i in (0, 1)
        )
        return horizontal, vertical


@dataclass(frozen=True)
class _Axis:
    """Hold one axis of the map from an image to the model input.

    The image stands at `padding` on a canvas of `canvas` pixels, which is resized to `resized` and cut or padded about
    its middle to `target`, of which whole patches cover `seen`:
    u = ((x + padding) * resized / canvas - (resized - target) // 2) / seen.
    """

    padding: int
    canvas: int
    resized: int
    target: int
    patch_size: int

    def to_unit(self, position: float) -> float:
        return ((position + self.padding) * self.resized / self.canvas - self._crop) / self._seen

    def from_unit(self, unit: float) -> float:
        return (unit * self._seen + self._crop) * self.canvas / self.resized - self.padding

    @property
    def _crop(self) -> int:
        return (self.resized - self.target) // 2  # negative if the crop is larger than the image: it then pads

    @property
    def _seen(self) -> int:
        return self.target // self.patch_size * self.patch_size


def box_to_grid(unit_box: Box, grid: tuple[int, int] = REGION_GRID) -> Cells:
    """Return the inclusive cells (xmin, ymin, xmax, ymax) of a grid of (rows, columns) that a unit box touches."""
    rows, columns = grid
    xmin, xmax = touched_cells(unit_box[0], unit_box[2], columns)
    ymin, ymax = touched_cells(unit_box[1], unit_box[3], rows)
    return xmin, ymin, xmax, ymax


def grid_to_unit(cells: Cells, grid: tuple[int, int] = REGION_GRID) -> Box:
    """Return the unit box that inclusive cells (xmin, ymin, xmax, ymax) of a grid of (rows, columns) cover."""
    rows, columns = grid
    xmin, ymin, xmax, ymax = cells
    return xmin / columns, ymin / rows, (xmax + 1) / columns, (ymax + 1) / rows


def pixels_to_cells(box: Box, width: float, height: float) -> Cells:
    """Return the cells of `REGION_GRID` over an un-padded image of that size that a box in pixels touches."""
    x1, y1, x2, y2 = box
    return box_to_grid((x1 / width, y1 / height, x2 / width, y2 / height))


def cells_to_pixels(cells: Cells, width: float, height: float) -> Box:
    """Return the box in pixels that inclusive cells of `REGION_GRID` cover in an un-padded image of that size."""
    x1, y1, x2, y2 = grid_to_unit(cells)
    return x1 * width, y1 * height, x2 * width, y2 * height


def covered_cells(cells: Cells) -> set[tuple[int, int]]:
    """Return every (column, row) of inclusive cells."""
    xmin, ymin, xmax, ymax = cells
    return {(x, y) for x in range(xmin, xmax + 1) for y in range(ymin, ymax + 1)}


def touched_cells(low: float, high: float, cells: int) -> tuple[int, int]:
    """Return first and last of `cells` equal cells along [0, 1] that the interval touches."""
    first = min(max(math.floor(low * cells + _EPSILON), 0), cells - 1)
    last = min(max(math.ceil(high * cells - _EPSILON) - 1, 0), cells - 1)
    return first, max(first, last)


def _clip_interval(low: float, high: float, size: float) -> tuple[float, float] | None:
    """Clip an interval to [0, size], at least one pixel long; None if it lies outside."""
    if low >= size or high < 0.0 or (high == 0.0 and low < 0.0):
        return None
    low = max(low, 0.0)
    high = min(high, size)
    if high - low < 1.0:
        low = min(max((low + high) / 2 - 0.5, 0.0), size - 1.0)
        high = low + 1.0
    return low, high


def _expand_interval(low: float, high: float, size: float, scale: float, min_side: float) -> tuple[float, float]:
    length = min(max((high - low) * scale, min_side * size), size)
    start = min(max((low + high) / 2 - length / 2, 0.0), size - length)
    return start, start + length


def _resize_shortest(width: int, height: int, shortest: int) -> tuple[int, int]:
    """Return width and height as transformers' `get_resize_output_image_size`, which rounds the longer side down."""
    if width <= height:
        return shortest, int(shortest * height / width)
    return int(shortest * width / height), shortest
