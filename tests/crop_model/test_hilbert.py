"""The curve visits every patch once, in steps to a neighbour, and keeps runs of it compact."""

from itertools import pairwise

import pytest

from crop_model.hilbert import hilbert_order


@pytest.mark.parametrize("rows", range(1, 31))
def test_every_patch_once_and_only_steps_to_neighbours(rows):
    for columns in range(1, 31):
        order = hilbert_order(rows, columns)
        assert sorted(order) == list(range(rows * columns))
        cells = [divmod(patch, columns) for patch in order]
        steps = [(abs(a[0] - b[0]), abs(a[1] - b[1])) for a, b in pairwise(cells)]
        assert all(max(step) == 1 for step in steps)
        diagonal = sum(step == (1, 1) for step in steps)
        assert diagonal <= 1
        if rows == columns:
            assert diagonal == 0


def test_64_runs_of_24x24_are_the_8x8_blocks():
    order = hilbert_order(24, 24)
    for start in range(0, 576, 9):
        blocks = {(patch // 24 // 3, patch % 24 // 3) for patch in order[start : start + 9]}
        assert len(blocks) == 1


def test_the_pictures_in_the_docstring():
    def picture(side):
        place = {patch: i for i, patch in enumerate(hilbert_order(side, side))}
        return [[place[row * side + column] for column in range(side)] for row in range(side)]

    assert picture(4) == [[0, 1, 14, 15], [3, 2, 13, 12], [4, 7, 8, 11], [5, 6, 9, 10]]
    assert picture(6)[:3] == [[0, 1, 2, 31, 32, 35], [7, 6, 3, 30, 33, 34], [8, 5, 4, 29, 28, 27]]
    assert picture(6)[3:] == [[9, 16, 17, 18, 25, 26], [10, 15, 14, 19, 24, 23], [11, 12, 13, 20, 21, 22]]
