"""Draw the two panels of a card: an image with its region, and the model's input as its visual tokens divide it."""

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from crop_model.regions import REGION_GRID, Box, ImageGeometry, grid_to_unit

PANEL = 448  # pixels per side of each panel

GROUND = "#eef1f4"  # beside an image that is not square
REGION_COLOR = "#ff00d4"
EXACT_COLOR, POOLED_COLOR = "#ffb000", "#e8edf2"  # outlines: a token of one patch, a token of several
DROPPED_BRIGHTNESS, POOLED_BRIGHTNESS = 0.12, 0.86


def region_panel(image: Image.Image, region: Box | None, geometry: ImageGeometry) -> Image.Image:
    """Draw the image in its own frame, centred in a square panel, with the region grid and the region."""
    scale = PANEL / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    left, top = (PANEL - size[0]) // 2, (PANEL - size[1]) // 2
    panel = Image.new("RGB", (PANEL, PANEL), GROUND)
    panel.paste(_resize(image.convert("RGB"), size), (left, top))

    overlay = Image.new("RGBA", panel.size)
    draw = ImageDraw.Draw(overlay)
    for box in _grid_boxes(image, geometry):
        draw.rectangle(_shift(box, scale, left, top), outline=(110, 120, 130, 120))
    panel = Image.alpha_composite(panel.convert("RGBA"), overlay).convert("RGB")
    if region is not None:
        _outline(ImageDraw.Draw(panel), _shift(region, scale, left, top))
    return panel


def token_panel(image: Image.Image, region: Box | None, cells: np.ndarray, geometry: ImageGeometry) -> Image.Image:
    """Draw the model's input with one outline per visual token; the more patches share it, the more they fade.

    Args:
        cells: (rows, cols) the visual token of every patch, -1 if it is dropped.
    """
    rows, cols = cells.shape
    height, width = geometry.input_size
    scale = PANEL / max(height, width)
    size = (round(width * scale), round(height * scale))
    view = _resize(_model_view(image.convert("RGB"), geometry), size)

    row_edges = np.linspace(0, size[1], rows + 1).round().astype(int)
    col_edges = np.linspace(0, size[0], cols + 1).round().astype(int)
    tokens, shared = (_expand(values, row_edges, col_edges) for values in (cells, patches_per_token(cells)))
    faded = _fade(np.asarray(view), tokens, shared)
    view = Image.fromarray(faded)
    draw = ImageDraw.Draw(view)
    _draw_token_outlines(draw, cells, row_edges, col_edges)

    unit = None if region is None else geometry.to_unit(region, *image.size)
    if unit is not None:
        _outline(draw, (unit[0] * size[0], unit[1] * size[1], unit[2] * size[0], unit[3] * size[1]))
    panel = Image.new("RGB", (PANEL, PANEL), GROUND)
    panel.paste(view, ((PANEL - size[0]) // 2, (PANEL - size[1]) // 2))
    return panel


def _model_view(image: Image.Image, geometry: ImageGeometry) -> Image.Image:
    """Cut out what the model sees of the image, in the shape of its input, at the image's own resolution."""
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


def _draw_token_outlines(
    draw: ImageDraw.ImageDraw, cells: np.ndarray, row_edges: np.ndarray, col_edges: np.ndarray
) -> None:
    """Draw a line between neighbouring patches of different tokens, amber beside a token of a single patch."""
    rows, cols = cells.shape
    exact = patches_per_token(cells) == 1

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


def token_cells(slots: Tensor, patch_grid: tuple[int, int]) -> np.ndarray:
    """Convert the (N,) tokens of the patches to (rows, cols)."""
    rows, cols = patch_grid
    if slots.numel() != rows * cols:
        raise ValueError(f"slots has {slots.numel()} patches, the patch grid {rows}x{cols} has {rows * cols}")
    return slots.detach().cpu().numpy().reshape(rows, cols)


def patches_per_token(cells: np.ndarray) -> np.ndarray:
    """Count the patches that share the token of each patch, (rows, cols); 0 for a dropped patch."""
    counts = np.bincount(cells[cells >= 0].ravel(), minlength=max(1, int(cells.max()) + 1))
    return np.where(cells >= 0, counts[np.maximum(cells, 0)], 0)


def _fade(pixels: np.ndarray, tokens: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Blend each pixel with the mean colour of its token, by 1 / sqrt(patches per token); darken what is dropped.

    This illustrates how many patches one token represents; the compressor computes something else.

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
    """Repeat the value of each patch over the pixels between the edges."""
    return np.repeat(np.repeat(values, np.diff(row_edges), axis=0), np.diff(col_edges), axis=1)


# ---- geometry


def _grid_boxes(image: Image.Image, geometry: ImageGeometry) -> list[Box]:
    """Return the cells of the 8x8 region grid in pixels of the image, without those that lie on padding alone."""
    cells = [grid_to_unit((col, row, col, row)) for row, col in np.ndindex(*REGION_GRID)]
    boxes = [geometry.from_unit(cell, *image.size) for cell in cells]
    return [box for box in boxes if box[2] > box[0] and box[3] > box[1]]


def _shift(box: Box, scale: float, left: float, top: float) -> Box:
    return (box[0] * scale + left, box[1] * scale + top, box[2] * scale + left - 1, box[3] * scale + top - 1)


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Enlarge by repeating pixels, so that nothing is invented; shrink with a proper filter."""
    larger = size[0] >= image.width
    return image.resize(size, Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS)


def _outline(draw: ImageDraw.ImageDraw, box: Box) -> None:
    """Outline the region by a bright line between two white ones, which shows on any background."""
    x0, y0, x1, y1 = box
    draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline="white", width=5)
    draw.rectangle((x0, y0, x1, y1), outline=REGION_COLOR, width=3)
