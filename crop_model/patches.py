"""Turn a contextual region from unit coordinates into a mask over the vision tower's patch grid.

unit box            8x8 cells                24x24 patches, 3x3 per cell
(.30 .05 .60 .20)   xmin=2 xmax=4            columns  6..14
                    ymin=0 ymax=1            rows     0..5
"""

import torch

from .regions import REGION_GRID, Box, box_to_grid, touched_cells


def patch_mask(
    unit_box: Box | None, patch_grid: tuple[int, int], region_grid: tuple[int, int] | None = REGION_GRID
) -> torch.Tensor:
    """Mark the patches of a contextual region.

    Args:
        unit_box: the region in unit coordinates of the model input; None: no region is known.
        patch_grid: rows and columns of the vision tower's patches.
        region_grid: the grid to whose cells the region is widened first, as CROP's localizer answers in cells; None:
            every patch that the box touches.

    Returns:
        bool tensor (rows * columns,), in raster order. All False for None. With a region grid: the patches whose centre
        lies in a cell that the box touches; if the cells are so small that no centre does, the patches that the cells
        touch. Never all False for a box.
    """
    rows, columns = patch_grid
    if unit_box is None:
        return torch.zeros(rows * columns, dtype=torch.bool)
    xmin, ymin, xmax, ymax = box_to_grid(unit_box, region_grid or patch_grid)
    if region_grid is not None:
        ymin, ymax = _patches_in_cells(ymin, ymax, region_grid[0], rows)
        xmin, xmax = _patches_in_cells(xmin, xmax, region_grid[1], columns)
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    mask[ymin : ymax + 1, xmin : xmax + 1] = True
    return mask.flatten()


def _patches_in_cells(first_cell: int, last_cell: int, cells: int, patches: int) -> tuple[int, int]:
    """Return first and last patch whose centre (2 i + 1) / (2 patches) lies in the cells, exactly: whole numbers."""
    inside = [i for i in range(patches) if first_cell <= (2 * i + 1) * cells // (2 * patches) <= last_cell]
    if inside:
        return inside[0], inside[-1]
    return touched_cells(first_cell / cells, (last_cell + 1) / cells, patches)
