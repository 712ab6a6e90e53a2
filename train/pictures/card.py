"""Draw samples: the image with its region, how the visual tokens divide it, the question and the answer.

One picture is a card of two panels with text below; a contact sheet is a grid of cards.

    +-----------------+  +-----------------+
    | the image,      |  | the model's     |    Left: the file's frame, with the region and the 8x8 region grid.
    | region outlined |  | input, outlined |    Right: the model's frame. Patches of one visual token share one
    |                 |  | by token        |    outline; the finer the outlines, the more detail is kept there.
    +-----------------+  +-----------------+
    Q  question
    A  answer
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from crop_model.regions import REGION_GRID, Box, ImageGeometry
from train.evaluation.metrics.matching import exact_match

from .panels import EXACT_COLOR, PANEL, REGION_COLOR, patches_per_token, region_panel, token_cells, token_panel

MARGIN = 14
TITLE_HEIGHT = 24
LINE_HEIGHT = 20
TEXT_COLUMNS = 118  # characters that fit under the two panels at TEXT_SIZE
TEXT_SIZE = 15

PAPER, INK, FAINT = "#ffffff", "#1b1f24", "#6b7280"
RIGHT_COLOR, WRONG_COLOR = "#15803d", "#b91c1c"


def draw_sample(
    image: Image.Image,
    region: Box | None,
    slots: Tensor,
    geometry: ImageGeometry,
    patch_grid: tuple[int, int],
    question: str,
    answer: str,
    target: str | None = None,
) -> Image.Image:
    """Draw one sample as a card.

    Args:
        image: the image as it was read, in its original frame.
        region: box in pixels of `image`, or None if no region is known.
        slots: (N,) the visual token of every patch, -1 if it is dropped.
        geometry: how the processor turned the image into the model's input.
        patch_grid: (rows, cols) of the vision tower, rows * cols = N.
        question, answer: text below the panels.
        target: the expected answer, which colours the answer and is shown if it differs; None: unknown.

    Returns:
        An RGB picture, about 920 pixels wide.
    """
    cells = token_cells(slots, patch_grid)
    left = region_panel(image, region, geometry)
    right = token_panel(image, region, cells, geometry)
    lines = _text_lines(question, answer, target)

    width = 2 * PANEL + 3 * MARGIN
    top = MARGIN + TITLE_HEIGHT
    height = top + PANEL + 2 * LINE_HEIGHT + LINE_HEIGHT * len(lines) + MARGIN
    card = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(card)
    _text(draw, (MARGIN, MARGIN), _region_title(image, region), INK)
    _text(draw, (2 * MARGIN + PANEL, MARGIN), _token_title(cells), INK)
    card.paste(left, (MARGIN, top))
    card.paste(right, (2 * MARGIN + PANEL, top))
    _draw_legends(draw, top + PANEL + 5, region is not None, cells)
    for number, (text, color) in enumerate(lines):
        _text(draw, (MARGIN, top + PANEL + 2 * LINE_HEIGHT + LINE_HEIGHT * number), text, color)
    return card


def contact_sheet(pictures: Sequence[Image.Image], columns: int) -> Image.Image:
    """Lay out `pictures` in rows of `columns`, each row as high as its highest picture.

    Raises:
        ValueError: no picture, or less than one column.
    """
    if not pictures or columns < 1:
        raise ValueError(
            f"a contact sheet takes at least one picture and one column, got {len(pictures)} and {columns}"
        )
    rows = [pictures[start : start + columns] for start in range(0, len(pictures), columns)]
    cell_width = max(picture.width for picture in pictures)
    heights = [max(picture.height for picture in row) for row in rows]
    sheet = Image.new("RGB", (cell_width * min(columns, len(pictures)), sum(heights)), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            sheet.paste(picture, (column * cell_width, top))
        top += height
        draw.line([(MARGIN, top - 1), (sheet.width - MARGIN, top - 1)], fill="#d5dae0")
    return sheet


# ---- text


def _region_title(image: Image.Image, region: Box | None) -> str:
    size = f"image {image.width} x {image.height}"
    if region is None:
        return f"{size}, no region: the whole image"
    share = (region[2] - region[0]) * (region[3] - region[1]) / (image.width * image.height)
    return f"{size}, region {share:.1%} of it"


def _token_title(cells: np.ndarray) -> str:
    tokens = len(np.unique(cells[cells >= 0]))
    return f"{tokens} visual tokens for {cells.size} patches ({tokens / cells.size:.1%})"


def _draw_legends(draw: ImageDraw.ImageDraw, top: int, has_region: bool, cells: np.ndarray) -> None:
    """Explain the lines that occur in each panel."""
    left_entries = [(REGION_COLOR, "region")] if has_region else []
    left_entries.append(("#8a949e", "{}x{} region grid".format(*REGION_GRID)))
    _legend(draw, (MARGIN, top), left_entries)

    shared = patches_per_token(cells)
    right_entries = []
    if (shared == 1).any():
        right_entries.append((EXACT_COLOR, f"one patch per token: {int((shared == 1).sum())}"))
    if (shared > 1).any():
        pooled = shared[shared > 1]
        span = f"{pooled.min()}" if pooled.min() == pooled.max() else f"{pooled.min()} to {pooled.max()}"
        right_entries.append(("#9aa4ae", f"{span} patches share a token"))
    if (shared == 0).any():
        right_entries.append(("#20242a", f"dropped: {int((shared == 0).sum())}"))
    _legend(draw, (2 * MARGIN + PANEL, top), right_entries)


def _legend(draw: ImageDraw.ImageDraw, corner: tuple[int, int], entries: Sequence[tuple[str, str]]) -> None:
    x, y = corner
    font = ImageFont.load_default(13)
    for color, text in entries:
        draw.rectangle((x, y + 2, x + 11, y + 13), fill=ImageColor.getrgb(color))
        draw.text((x + 17, y), text, fill=FAINT, font=font)
        x += 17 + round(draw.textlength(text, font=font)) + 16


def _text_lines(question: str, answer: str, target: str | None) -> list[tuple[str, str]]:
    """Wrap the text under the panels; return each line with its colour."""
    texts = [("Q", question, INK), ("A", answer, INK)]
    if target is not None and exact_match(answer, target):
        texts[1] = "A", answer, RIGHT_COLOR
    elif target is not None:
        texts[1:] = [("A", answer, WRONG_COLOR), ("expected", target, FAINT)]
    return [
        (line, color)
        for label, text, color in texts
        for line in textwrap.wrap(f"{label}:  {text}", TEXT_COLUMNS, subsequent_indent="      ")
    ]


def _text(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, color: str) -> None:
    draw.text(corner, text, fill=color, font=ImageFont.load_default(TEXT_SIZE))
