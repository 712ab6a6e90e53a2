"""Name the size of a region."""

from crop_model.regions import WHOLE_IMAGE, Cells, covered_cells

# The share of the image's cells that a box covers, at most: the sizes that are balanced.
SIZES = {"small": 1 / 16, "medium": 1 / 4, "large": 1.0}


def size_of(cells: Cells) -> str:
    """Of `SIZES`, or global for all cells."""
    share = len(covered_cells(cells)) / len(covered_cells(WHOLE_IMAGE))
    return "global" if share == 1 else next(name for name, limit in SIZES.items() if share <= limit)
