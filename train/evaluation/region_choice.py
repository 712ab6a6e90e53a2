"""Choose the region of a question in an evaluation.

`oracle` is the annotated region, `global` is none, and `random` is a box of the annotated size at another position: the
negative control that shows whether regions matter. With these a question without a region has none. `localizer` is a
model's prediction for every question with an image (`train.evaluation.localization`).
"""

import random

from crop_model.regions import Box

REGION_SOURCES, LOCALIZER = ("oracle", "random", "global"), "localizer"
LINE_WIDTH = 1e-6  # pixels


def choose_region(source: str, oracle: Box | None, width: int, height: int, seed_key: str) -> Box | None:
    """Return the region that `source` gives for a question.

    Args:
        oracle: the annotated region in pixels, or None.
        width, height: size of the image in pixels.
        seed_key: seeds the draw of `random`; the same key gives the same box.

    Raises:
        ValueError: unknown source.
    """
    if source not in REGION_SOURCES:
        raise ValueError(f"region_source: {source!r} is none of {', '.join(REGION_SOURCES)}")
    if source == "global" or oracle is None:
        return None
    return oracle if source == "oracle" else displaced_box(oracle, width, height, random.Random(seed_key))


def displaced_box(box: Box, width: int, height: int, rng: random.Random) -> Box:
    """Draw a box of the same size, uniformly over the positions without overlap with `box`, or over all if none exist.

    The top left corners with an overlap form a rectangle within the one of all corners, so that the rest consists of
    four strips, one of which is drawn by its area:

        +-------------------------+  0
        |          above          |
        +------+-----------+------+  box's top - its height
        | left | overlaps  | right|
        +------+-----------+------+  box's bottom
        |          below          |
        +-------------------------+  height - box's height
    """
    x0, y0, x1, y1 = box
    box_width, box_height = x1 - x0, y1 - y0
    x_end, y_end = width - box_width, height - box_height  # the last corner at which the box is inside
    top, bottom = max(0.0, y0 - box_height), min(y_end, y1)  # the middle row's ends
    strips = [
        (0.0, 0.0, x_end, y0 - box_height),
        (0.0, y1, x_end, y_end),
        (0.0, top, x0 - box_width, bottom),
        (x1, top, x_end, bottom),
    ]
    weights = [_area(*strip) for strip in strips]
    if not any(weights):
        strips, weights = [(0.0, 0.0, x_end, y_end)], [1.0]
    x_low, y_low, x_high, y_high = rng.choices(strips, weights)[0]
    x, y = rng.uniform(x_low, x_high), rng.uniform(y_low, y_high)
    return x, y, x + box_width, y + box_height


def _area(x_low: float, y_low: float, x_high: float, y_high: float) -> float:
    """Compute a strip's area, 0 if it is empty. A line still counts: a box as wide as the image has no other strip."""
    if x_high < x_low or y_high < y_low:
        return 0.0
    return (x_high - x_low + LINE_WIDTH) * (y_high - y_low + LINE_WIDTH)
