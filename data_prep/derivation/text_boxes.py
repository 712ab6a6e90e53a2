"""Find boxes in text, as LLaVA writes them ([0.12, 0.2, 0.45, 0.789]), and measure which frame they are fractions of.

On a padded square, a landscape image of r = height / width fills only part of the height:

    0 +-----------+
      |  padding  |        every y of a true box lies in [(1 - r) / 2, (1 + r) / 2];
      +-----------+        fractions of the image itself fill [0, 1] and leave that band,
      |   image   |        so that counting boxes outside it distinguishes the two
      +-----------+
      |  padding  |
    1 +-----------+

LLaVA's own sets are reported to use the padded square (LLaVA issue 606); others use either. So the frame is measured.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from data_prep.schema.question import BoxFrame

_NUMBER = r"\s*([01]?\.\d+|[01])\s*"
_BOX = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")

MAX_VIOLATIONS = 0.01  # largest share of boxes outside the band for a source on the padded square
MIN_VIOLATIONS = 5  # fewest such boxes that count as evidence
MIN_DECIMALS = 2  # fewest numbers of a box with a decimal point: [0, 0, 1, 1] is a list
ROUNDING = 0.011  # two decimals, cut or rounded
MIN_BAND = 0.02  # an image closer to a square than this is no evidence


def find_boxes(text: str) -> list[tuple[float, float, float, float]]:
    """Return all boxes of fractions in a text; four fractions whose corners are out of order are not a box."""
    if "[" not in text:
        return []
    boxes = []
    for match in _BOX.finditer(text):
        x1, y1, x2, y2 = map(float, match.groups())
        if x1 < x2 and y1 < y2 and match.group().count(".") >= MIN_DECIMALS:
            boxes.append((x1, y1, x2, y2))
    return boxes


@dataclass
class FrameTest:
    """Count boxes that cannot be on the padded square."""

    boxes: int = 0
    violations: int = 0

    def add(self, boxes: Iterable[Sequence[float]], width: int, height: int) -> None:
        """Count boxes in fractions of an image of `width` x `height`; a square image is no evidence and is skipped."""
        longest = max(width, height)
        left, top = (longest - width) / (2 * longest), (longest - height) / (2 * longest)
        if max(left, top) < MIN_BAND:
            return
        for x1, y1, x2, y2 in boxes:
            self.boxes += 1
            inside_x = left - ROUNDING <= min(x1, x2) and max(x1, x2) <= 1 - left + ROUNDING
            inside_y = top - ROUNDING <= min(y1, y2) and max(y1, y2) <= 1 - top + ROUNDING
            self.violations += not (inside_x and inside_y)

    @property
    def frame(self) -> BoxFrame:
        """Return the frame that the boxes are in; without evidence, LLaVA's own."""
        enough = self.violations >= MIN_VIOLATIONS and self.violations > MAX_VIOLATIONS * self.boxes
        return "unit" if enough else "padded_square"
