"""WSDM Cup 2023: URLs become file names, nothing is trained on but boxes."""

from pathlib import Path

import pytest

from tests.data_prep.fixtures import annotated, rows_of
from tests.data_prep.fixtures.toloka import make

PLANT, SEAT = "000000535978.jpg", "000000091630.jpg"  # 64x48 and 40x90


@pytest.mark.parametrize(
    ("image", "question", "region", "flags"),
    [
        (PLANT, "What can we use to support the plant?", [10, 5, 30, 25], []),
        (PLANT, "Which fruit is red?", [20, 10, 40, 30], ["swapped_corners"]),  # left 40, right 20
        (SEAT, "What do we sit on, when tired?", [0, 80, 40, 90], ["oob_clipped"]),  # right 50 of 40, bottom 95 of 90
        (SEAT, "What is thin?", [4.5, 5, 5.5, 9], ["degenerate"]),  # no width: one pixel about x = 5
        (SEAT, "What is nowhere?", None, ["bad_box", "lost_box", "no_evidence"]),
    ],
)
def test_regions(tmp_path: Path, image: str, question: str, region: list[float] | None, flags: list[str]) -> None:
    rows, _ = rows_of(make, tmp_path)
    assert (rows[image, question]["region"], rows[image, question]["flags"]) == (region, flags)


def test_rejected_and_no_samples(tmp_path: Path) -> None:
    _, rejected = rows_of(make, tmp_path)
    assert [(line["reason"], line["image"]) for line in rejected] == [
        ("outside_root", ".."),
        ("schema", ""),  # `left` is empty
        ("no_image", "gone.jpg"),
    ]
    assert not (annotated(make(tmp_path), tmp_path) / "samples").exists()
