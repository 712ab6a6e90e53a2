"""Compose and draw demo scenes: boards of real handwritten digits with coloured frames and a dark panel.

A scene is the content of a board, about which `questions.py` asks. The digits are scikit-learn's bundled 8x8 scans.

         A   B   C   D   E   F   G   H        one scan per cell; about 5 % of the cells hold a shape or nothing
       +---+---+---+---+---+---+---+---+
   1   | 3 |[7]| 1 | 0 | 9 | 4 | 2 | 6 |      [7]  a digit in a coloured frame, at B1
       +---+---+---+---+---+---+---+---+
   2   | 5 | 8 |###|###|###| 1 | 4 | 2 |
       +---+---+---+---+---+---+---+---+
   3   | 0 | 2 |###|###|###| 7 | 5 | 3 |      ###  the panel: light ink on a dark ground, 3x3 to 5x5 cells
       +---+---+---+---+---+---+---+---+

A cell is named as on a chess board, but from the board's upper left corner. The longer side of a board always has eight
cells, the shorter one four, six or eight.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from crop_model.regions import Box

Cell = tuple[int, int]  # (row, column), 0-based
Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (225, 30, 40),
    "green": (0, 165, 70),
    "blue": (40, 90, 240),
    "orange": (240, 130, 0),
    "purple": (160, 40, 200),
    "cyan": (0, 190, 220),
}

LONG_SIDE = 8
CELL_NAMES = tuple(f"{column}{row}" for row in range(1, LONG_SIDE + 1) for column in "ABCDEFGH")
BOARD_SIZES = ((8, 8), (8, 8), (8, 8), (8, 6), (6, 8), (8, 4), (4, 8))  # (rows, columns)
CELL_PIXELS = (14, 32)
DIGIT_SHARE = 0.75  # share of a cell's side
PANEL_CELLS = (3, 5)
FRAME_COUNT_CHANCES = (0.3, 0.5, 0.12, 0.08)  # probability of 0, 1, 2, 3 frames of one colour on a board
EMPTY_CHANCE = 0.05
TEST_SHARE = 0.2
SPLIT_SEED = 20252  # the split of the scans never depends on a run's seed


@dataclass(frozen=True)
class Scans:
    """Hold handwritten digits: `images` (n, 8, 8) of ink in [0, 1], `labels` (n,), `indices` (n,) in load_digits."""

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


@dataclass(frozen=True)
class Scene:
    """Hold the content of a board. `scan` (rows, columns) indexes the split's scans, -1 if a cell holds no digit."""

    scan: np.ndarray
    digit: np.ndarray
    frames: dict[Cell, str]  # the colour of a cell's frame
    panel: tuple[int, int, int, int]  # first row, first column, last row, last column, inclusive
    cell_pixels: int

    @property
    def rows(self) -> int:
        return self.scan.shape[0]

    @property
    def columns(self) -> int:
        return self.scan.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Return width and height in pixels."""
        return self.columns * self.cell_pixels, self.rows * self.cell_pixels

    def in_panel(self, cell: Cell) -> bool:
        top, left, bottom, right = self.panel
        return top <= cell[0] <= bottom and left <= cell[1] <= right

    def cell_box(self, cell: Cell) -> Box:
        """Return the pixel box of a cell, half-open."""
        return self.block_box((*cell, *cell))

    def block_box(self, block: tuple[int, int, int, int]) -> Box:
        """Return the pixel box of a block of cells (first row, first column, last row, last column), half-open."""
        top, left, bottom, right = block
        side = float(self.cell_pixels)
        return left * side, top * side, (right + 1) * side, (bottom + 1) * side

    def framed_in(self, colour: str) -> list[Cell]:
        return [cell for cell, frame in sorted(self.frames.items()) if frame == colour]


def cell_name(cell: Cell) -> str:
    """Name a cell in one word: "B3" is the second column of the third row."""
    row, column = cell
    return CELL_NAMES[row * LONG_SIDE + column]


@lru_cache
def load_scans(split: str) -> Scans:
    """Load the scans of `split` ("train" or "test"); every scan belongs to exactly one of the two."""
    data = load_digits()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(data.target))
    cut = round(len(order) * TEST_SHARE)
    chosen = np.sort({"test": order[:cut], "train": order[cut:]}[split])
    return Scans(data.images[chosen] / 16.0, data.target[chosen], chosen)


def compose(rng: np.random.Generator, scans: Scans) -> Scene:
    """Draw the content of a board at random: its size, a scan for almost every cell, the frames and the panel."""
    rows, columns = BOARD_SIZES[rng.integers(len(BOARD_SIZES))]
    scan = rng.integers(len(scans.labels), size=(rows, columns))
    scan[rng.random((rows, columns)) < EMPTY_CHANCE] = -1
    digit = np.where(scan < 0, -1, scans.labels[scan])
    cells = [(int(row), int(column)) for row, column in rng.permutation(np.argwhere(scan >= 0))]
    frames: dict[Cell, str] = {}
    for colour in COLOURS:
        for _ in range(rng.choice(len(FRAME_COUNT_CHANCES), p=FRAME_COUNT_CHANCES)):
            frames[cells.pop()] = colour
    height, width = np.minimum(rng.integers(PANEL_CELLS[0], PANEL_CELLS[1] + 1, size=2), (rows, columns))
    top, left = rng.integers(rows - height + 1), rng.integers(columns - width + 1)
    panel = (int(top), int(left), int(top + height - 1), int(left + width - 1))
    return Scene(scan, digit, frames, panel, int(rng.integers(CELL_PIXELS[0], CELL_PIXELS[1] + 1)))


def render(scene: Scene, scans: Scans, rng: np.random.Generator) -> Image.Image:
    """Render the board. `rng` decides paper, ink and small shifts of the digits: nothing that a question asks for."""
    paper, ink = _shade(rng, 222, 250), _shade(rng, 5, 60)
    panel_paper, panel_ink = _shade(rng, 20, 65), _shade(rng, 215, 250)
    image = Image.new("RGB", scene.size, paper)
    draw = ImageDraw.Draw(image)
    draw.rectangle(_pixels(scene.block_box(scene.panel)), fill=panel_paper)
    for row, column in np.ndindex(scene.rows, scene.columns):
        cell = (row, column)
        if cell in scene.frames:
            width = max(1, round(scene.cell_pixels / 10))
            draw.rectangle(_pixels(scene.cell_box(cell)), outline=COLOURS[scene.frames[cell]], width=width)
        if scene.scan[cell] >= 0:
            side = round(DIGIT_SHARE * scene.cell_pixels)
            ink_mask = Image.fromarray((scans.images[scene.scan[cell]] * 255).astype(np.uint8))
            strokes = ink_mask.resize((side, side), Image.Resampling.BICUBIC)
            image.paste(panel_ink if scene.in_panel(cell) else ink, _digit_corner(scene, cell, rng), strokes)
        else:
            _draw_distractor(draw, scene, cell, rng)
    return image


def _digit_corner(scene: Scene, cell: Cell, rng: np.random.Generator) -> tuple[int, int]:
    """Place the digit's upper left pixel so that the digit is centred in its cell, give or take one pixel."""
    left, top, _, _ = scene.cell_box(cell)
    margin = (scene.cell_pixels - round(DIGIT_SHARE * scene.cell_pixels)) // 2
    shift = rng.integers(-1, 2, size=2)
    return int(left) + margin + int(shift[0]), int(top) + margin + int(shift[1])


def _draw_distractor(draw: ImageDraw.ImageDraw, scene: Scene, cell: Cell, rng: np.random.Generator) -> None:
    """Draw a triangle, a cross or nothing, in any colour: never the answer to a question."""
    left, top, right, bottom = scene.cell_box(cell)
    inset = scene.cell_pixels / 4
    left, top, right, bottom = left + inset, top + inset, right - inset, bottom - inset
    colour = list(COLOURS.values())[rng.integers(len(COLOURS))]
    match int(rng.integers(3)):
        case 0:
            draw.polygon([(left, bottom), ((left + right) / 2, top), (right, bottom)], fill=colour)
        case 1:
            width = max(1, scene.cell_pixels // 8)
            draw.line([(left, top), (right, bottom)], fill=colour, width=width)
            draw.line([(left, bottom), (right, top)], fill=colour, width=width)


def _shade(rng: np.random.Generator, low: int, high: int) -> Colour:
    red, green, blue = (int(value) for value in rng.integers(low, high + 1, size=3))
    return red, green, blue


def _pixels(box: Box) -> tuple[int, int, int, int]:
    """Convert a box to PIL's form, which includes the last pixel."""
    left, top, right, bottom = (int(side) for side in box)
    return left, top, right - 1, bottom - 1
