"""Pictures of samples: the image with its region, what the visual tokens keep of it, the question and the answer.

One picture is a card of two panels with text below; a contact sheet is a grid of cards.

    +-----------------+  +-----------------+
    | the image,      |  | the model's     |    Left: the file's frame, with the region and the 8x8 region grid.
    | region outlined |  | input, one      |    Right: the model's frame. Patches of one visual token share one
    |                 |  | outline a token |    outline; the finer the outlines, the more detail is kept there.
    +-----------------+  +-----------------+
    Q  question
    A  answer
"""

import textwrap
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont
from torch import Tensor

from crop_model.regions import REGION_GRID, Box, ImageGeometry, grid_to_unit

from .metrics import exact_match

PANEL = 448  # pixels a side of each panel
MARGIN = 14
TITLE_HEIGHT = 24
LINE_HEIGHT = 20
TEXT_COLUMNS = 118  # characters that fit under the two panels at TEXT_SIZE
TEXT_SIZE = 15

PAPER, INK, FAINT = "#ffffff", "#1b1f24", "#6b7280"
REGION_COLOR = "#ff00d4"
EXACT_COLOR, POOLED_COLOR = "#ffb000", "#e8edf2"  # outlines: a token of one patch, a token of several
RIGHT_COLOR, WRONG_COLOR = "#15803d", "#b91c1c"
DROPPED_BRIGHTNESS, POOLED_BRIGHTNESS = 0.12, 0.86


def draw_sample(
    image: Image.Image,
    region: Box | None,
    slots: Tensor | None,
    geometry: ImageGeometry,
    patch_grid: tuple[int, int],
    question: str,
    answer: str,
    target: str | None = None,
) -> Image.Image:
    """Draw one sample as a card.

    Args:
        image: the image as it was read, in its original frame.
        region: box in pixels of `image`, or None where no region is known.
        slots: (N,) the visual token every patch goes to, -1 where it is dropped; None: every patch is its own token.
        geometry: how the processor turned the image into the model's input.
        patch_grid: (rows, cols) of the vision tower, rows * cols = N.
        question, answer: text below the panels.
        target: the expected answer; colours the answer and is shown where it differs. None: unknown.

    Returns:
        An RGB picture, about 920 pixels wide.
    """
    cells = _cells(slots, patch_grid)
    left = _region_panel(image, region, geometry)
    right = _token_panel(image, region, cells, geometry)
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
    """Lay `pictures` out in rows of `columns`, each row as high as its highest picture.

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


# ---- panels


def _region_panel(image: Image.Image, region: Box | None, geometry: ImageGeometry) -> Image.Image:
    """The image in its own frame, centred in a square panel, with the region grid and the region."""
    scale = PANEL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    left, top = (PANEL - size[0]) // 2, (PANEL - size[1]) // 2
    panel = Image.new("RGB", (PANEL, PANEL), "#eef1f4")
    panel.paste(_resize(image.convert("RGB"), size), (left, top))

    overlay = Image.new("RGBA", panel.size)
    draw = ImageDraw.Draw(overlay)
    for box in _grid_boxes(image, geometry):
        draw.rectangle(_shift(box, scale, left, top), outline=(110, 120, 130, 120))
    panel = Image.alpha_composite(panel.convert("RGBA"), overlay).convert("RGB")
    if region is not None:
        _outline(ImageDraw.Draw(panel), _shift(region, scale, left, top))
    return panel


def _token_panel(image: Image.Image, region: Box | None, cells: np.ndarray, geometry: ImageGeometry) -> Image.Image:
    """The model's input, one outline a visual token; the more patches share it, the more they fade into one colour."""
    rows, cols = cells.shape
    height, width = geometry.input_size
    scale = PANEL / max(height, width)
    size = (round(width * scale), round(height * scale))
    view = _resize(_model_view(image.convert("RGB"), geometry), size)

    row_edges = np.linspace(0, size[1], rows + 1).round().astype(int)
    col_edges = np.linspace(0, size[0], cols + 1).round().astype(int)
    faded = _fade(
        np.asarray(view), _expand(cells, row_edges, col_edges), _expand(_patches_per_token(cells), row_edges, col_edges)
    )
    view = Image.fromarray(faded)
    _draw_slot_outlines(ImageDraw.Draw(view), cells, row_edges, col_edges)

    unit = None if region is None else geometry.to_unit(region, *image.size)
    if unit is not None:
        box = (unit[0] * size[0], unit[1] * size[1], unit[2] * size[0], unit[3] * size[1])
        _outline(ImageDraw.Draw(view), box)
    panel = Image.new("RGB", (PANEL, PANEL), "#eef1f4")
    panel.paste(view, ((PANEL - size[0]) // 2, (PANEL - size[1]) // 2))
    return panel


def _model_view(image: Image.Image, geometry: ImageGeometry) -> Image.Image:
    """The part of the image that the model sees, in the shape of its input, at the image's own resolution."""
    height, width = geometry.input_size
    if geometry.frame == "squashed":
        return image.resize((width, height), Image.Resampling.BICUBIC)
    if geometry.frame == "padded_square":
        side = max(image.size)
        square = Image.new("RGB", (side, side), "#7f7f7f")
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square
    # cropped: the shorter side becomes resized_shortest pixels, then the centre is cut out
    scale = (geometry.resized_shortest or min(height, width)) / min(image.size)
    half_width, half_height = width / scale / 2, height / scale / 2
    centre_x, centre_y = image.width / 2, image.height / 2
    left, top = round(centre_x - half_width), round(centre_y - half_height)
    return image.crop((left, top, round(centre_x + half_width), round(centre_y + half_height)))


def _draw_slot_outlines(
    draw: ImageDraw.ImageDraw, cells: np.ndarray, row_edges: np.ndarray, col_edges: np.ndarray
) -> None:
    """A line wherever two neighbouring patches belong to different tokens, amber beside a token of a single patch."""
    rows, cols = cells.shape
    exact = _patches_per_token(cells) == 1

    def color(first: tuple[int, int], second: tuple[int, int]) -> str:
        return EXACT_COLOR if exact[first] or exact[second] else POOLED_COLOR

    lines: list[tuple[tuple[int, int, int, int], str]] = []
    for row in range(rows):
        for col in range(cols):
            here, right, below = (row, col), (row, col + 1), (row + 1, col)
            if col + 1 < cols and cells[here] != cells[right]:
                x = col_edges[col + 1]
                lines.append(((x, row_edges[row], x, row_edges[row + 1]), color(here, right)))
            if row + 1 < rows and cells[here] != cells[below]:
                y = row_edges[row + 1]
                lines.append(((col_edges[col], y, col_edges[col + 1], y), color(here, below)))
    for line, line_color in sorted(lines, key=lambda entry: entry[1] == EXACT_COLOR):  # amber above grey
        draw.line(line, fill=line_color)


# ---- numbers behind the token panel


def _cells(slots: Tensor | None, patch_grid: tuple[int, int]) -> np.ndarray:
    """(rows, cols) token of every patch; without slots every patch is its own token."""
    rows, cols = patch_grid
    if slots is None:
        return np.arange(rows * cols).reshape(rows, cols)
    if slots.numel() != rows * cols:
        raise ValueError(f"slots has {slots.numel()} patches, the patch grid {rows}x{cols} has {rows * cols}")
    return slots.detach().cpu().numpy().reshape(rows, cols)


def _patches_per_token(cells: np.ndarray) -> np.ndarray:
    """(rows, cols) how many patches share the token of each patch; 0 where the patch is dropped."""
    counts = np.bincount(cells[cells >= 0].ravel(), minlength=max(1, int(cells.max()) + 1))
    return np.where(cells >= 0, counts[np.maximum(cells, 0)], 0)


def _fade(pixels: np.ndarray, tokens: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Blend each pixel with the mean colour of its token, by 1 / sqrt(patches a token); darken what is dropped.

    An illustration of how many patches one token has to speak for, not what the compressor computes.

    Args:
        pixels: (H, W, 3) uint8.   tokens: (H, W) of every pixel, -1 dropped.   shared: (H, W) patches of that token.
    """
    ids = tokens + 1  # 0: dropped
    counts = np.bincount(ids.ravel())
    sums = np.stack([np.bincount(ids.ravel(), weights=pixels[..., channel].ravel()) for channel in range(3)], axis=-1)
    means = sums / np.maximum(counts, 1)[:, None]  # (tokens + 1, 3)
    own = np.where(shared > 0, 1 / np.sqrt(np.maximum(shared, 1)), 1.0)[..., None]
    brightness = np.select([shared == 0, shared == 1], [DROPPED_BRIGHTNESS, 1.0], POOLED_BRIGHTNESS)[..., None]
    return ((own * pixels + (1 - own) * means[ids]) * brightness).astype(np.uint8)


def _expand(values: np.ndarray, row_edges: np.ndarray, col_edges: np.ndarray) -> np.ndarray:
    """Repeat one value a patch over the pixels between the edges."""
    return np.repeat(np.repeat(values, np.diff(row_edges), axis=0), np.diff(col_edges), axis=1)


# ---- geometry and text


def _grid_boxes(image: Image.Image, geometry: ImageGeometry) -> list[Box]:
    """The cells of the 8x8 region grid, in pixels of the image; cells that lie on padding alone are left out."""
    boxes = []
    for row, col in np.ndindex(*REGION_GRID):
        box = geometry.from_unit(grid_to_unit((col, row, col, row)), *image.size)
        if box[2] > box[0] and box[3] > box[1]:
            boxes.append(box)
    return boxes


def _shift(box: Box, scale: float, left: float, top: float) -> Box:
    return (box[0] * scale + left, box[1] * scale + top, box[2] * scale + left - 1, box[3] * scale + top - 1)


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Enlarge by repeating pixels, so that nothing is invented; shrink with a proper filter."""
    larger = size[0] >= image.width
    return image.resize(size, Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS)


def _outline(draw: ImageDraw.ImageDraw, box: Box) -> None:
    """The region: a bright line between two white ones, so that it shows on any background."""
    x0, y0, x1, y1 = box
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline="white", width=5)
    draw.rectangle((x0, y0, x1, y1), outline=REGION_COLOR, width=3)


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
    """What the lines of either panel mean; only what occurs in it."""
    left_entries = [("#8a949e", "{}x{} region grid".format(*REGION_GRID))]
    if has_region:
        left_entries.insert(0, (REGION_COLOR, "region"))
    _legend(draw, (MARGIN, top), left_entries)

    shared = _patches_per_token(cells)
    right_entries = []
    if (shared == 1).any():
        right_entries.append((EXACT_COLOR, f"one patch a token: {int((shared == 1).sum())}"))
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
    """The wrapped text under the panels, each line with its colour."""
    lines = [(line, INK) for line in _wrap("Q", question)]
    if target is None:
        return lines + [(line, INK) for line in _wrap("A", answer)]
    right = exact_match(answer, target)
    lines += [(line, RIGHT_COLOR if right else WRONG_COLOR) for line in _wrap("A", answer)]
    return lines if right else lines + [(line, FAINT) for line in _wrap("expected", target)]


def _wrap(label: str, text: str) -> list[str]:
    return textwrap.wrap(f"{label}:  {text}", TEXT_COLUMNS, subsequent_indent="      ") or [label]


def _text(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, color: str) -> None:
    draw.text(corner, text, fill=color, font=ImageFont.load_default(TEXT_SIZE))
