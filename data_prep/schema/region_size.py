"""Name the size of a region."""

from crop_model.regions import WHOLE_IMAGE, Cells, covered_cells

# The largest share of the image's cells that a region of each size covers; `data_prep.localizer_data` balances them.
SIZES = {"small": 1 / 16, "medium": 1 / 4, "large": 1.0}


def size_of(cells: Cells) -> str:
    """Return one of `SIZES`, or `global` for all cells."""
    share = len(covered_cells(cells)) / len(covered_cells(WHOLE_IMAGE))
    return "global" if share == 1 else next(name for name, limit in SIZES.items() if share <= limit)
