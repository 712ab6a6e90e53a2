"""Walk a grid of any size along a Hilbert-like curve: the order in which patches are grouped into slots.

Successive patches on the curve touch in the image, so a run of the curve is a compact piece of the image.
The construction is the known generalisation of Hilbert's curve to rectangles (walk up one part, across the next and
down the last; J. Cerveny's "gilbert"). The rule for odd halves is this project's: a 24x24 grid splits down to whole
3x3 blocks, so that 64 equal runs of its curve are exactly the 8x8 blocks of the region grid.

    4x4:   0  1 14 15          6x6, four 3x3 blocks:    0   1   2 | 31  32  35
           3  2 13 12                                   7   6   3 | 30  33  34
           4  7  8 11                                   8   5   4 | 29  28  27
           5  6  9 10                                  -----------+-----------
                                                        9  16  17 | 18  25  26
                                                       10  15  14 | 19  24  23
                                                       11  12  13 | 20  21  22
"""

from collections.abc import Iterator
from functools import lru_cache

Cell = tuple[int, int]  # (row, column), or a unit step along one of them


@lru_cache(maxsize=32)
def hilbert_order(rows: int, columns: int) -> tuple[int, ...]:
    """Return the raster indices (row * columns + column) of a grid's cells in the order of the curve."""
    if columns >= rows:
        cells = _walk((0, 0), (0, 1), (1, 0), columns, rows)
    else:
        cells = _walk((0, 0), (1, 0), (0, 1), rows, columns)
    return tuple(row * columns + column for row, column in cells)


def _walk(start: Cell, along: Cell, across: Cell, length: int, width: int) -> Iterator[Cell]:
    """Yield the cells of a rectangle, `length` steps along and `width` steps across, to the far end of `along`."""
    if width == 1 or length == 1:
        step, steps = (along, length) if width == 1 else (across, width)
        for i in range(steps):
            yield _move(start, step, i)
        return
    half_length, half_width = length // 2, width // 2
    if 2 * length > 3 * width:  # long: one part after the other
        if half_length % 2 and length > 2 and width % 2 == 0:
            half_length += 1
        yield from _walk(start, along, across, half_length, width)
        yield from _walk(_move(start, along, half_length), along, across, length - half_length, width)
        return
    # A part of odd length and even width has no path between its ends without a diagonal step: avoid such parts.
    if half_width % 2 and width > 2 and not (half_length % 2 and length % 2 == 0):
        half_width += 1
    last = _move(_move(start, along, length - 1), across, half_width - 1)
    yield from _walk(start, across, along, half_width, half_length)
    yield from _walk(_move(start, across, half_width), along, across, length, width - half_width)
    yield from _walk(last, _reverse(across), _reverse(along), half_width, length - half_length)


def _move(cell: Cell, step: Cell, times: int) -> Cell:
    return cell[0] + step[0] * times, cell[1] + step[1] * times


def _reverse(step: Cell) -> Cell:
    return -step[0], -step[1]
