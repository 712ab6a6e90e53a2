"""OCR-VQA: covers with and without OCR, GIFs by another name, missing images, splits."""

from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.sources import Source
from tests.data_prep.fixtures import rows_of
from tests.data_prep.fixtures.ocr_vqa import make
from tests.data_prep.fixtures.pictures import draw

WALL, CAKE = "images/1588345785.jpg", "images/761183272.png"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("ocr_vqa"))


@pytest.mark.parametrize(
    ("question", "region"),
    [
        # Of 100x150. Sandra .2 .7 .3 .1, Boynton .55 .7 .35 .1
        ("Who wrote this book?", [20, 105, 90, 120]),
        # Mom's .1 .1 .3 .1, Family .5 .1 .4 .1, Wall .1 .25 .3 .1
        ("What is the title of this book?", [10, 15, 90, 52.5]),
    ],
)
def test_regions(result, question, region):
    row = result[0][WALL, question]
    assert row["region"] == pytest.approx(region)
    assert (row["method"], row["flags"]) == ("ocr_match", [])


def test_genre_and_yes_or_no_are_not_read(result):
    # The word "No" stands on the cover, and is not why it is no comedy.
    for question in ("What type of book is this?", "Is this a comedy book?"):
        row = result[0][WALL, question]
        assert (row["region"], row["method"], row["score"]) == (None, "global", 1)


def test_without_ocr(result):
    row = result[0][CAKE, "Who wrote this book?"]
    assert (row["method"], row["score"]) == ("global", 0)
    assert row["flags"] == ["format_mismatch", "no_evidence", "no_ocr"]  # a GIF called .png


def test_rejections(result):
    rows, rejected = result
    assert len(rows) == 8  # four of each of two covers; none of the validation split
    reasons = [(line["record"], line["reason"]) for line in rejected]
    assert reasons == [(2, "no_image")] * 4 + [(4, "answers"), (5, "schema")]


def test_another_split_and_extension(tmp_path: Path) -> None:
    def make_val(folder: Path) -> Source:
        draw(folder / "images" / "images" / "1419719602.gif", 20, 30)
        return replace(make(folder), split="val", extension=".gif")

    rows, _ = rows_of(make_val, tmp_path)
    assert {image for image, _ in rows} == {"images/1419719602.gif"}
