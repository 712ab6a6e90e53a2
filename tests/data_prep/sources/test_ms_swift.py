"""ms-swift: pixels and fractions, boxes of the turn that marks them, the first image's alone. wide.jpg is 64x40."""

from pathlib import Path

import pytest

from data_prep.sample import read_regions, sample_id
from tests.data_prep.fixtures import annotated, rows_of
from tests.data_prep.fixtures.ms_swift import make


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("ms_swift"))


@pytest.mark.parametrize(
    ("question", "boxes", "flags"),
    [
        ("Find <ref-object>", [[10, 5, 30, 25]], ["leak_answer_box"]),
        # norm1: 0.1 * 64, 0.25 * 40, 0.5 * 64, 0.75 * 40
        ("What is in <bbox>?", [[6.4, 10, 32, 30]], []),
        ("Where is it?", [[20, 10, 40, 30]], ["swapped_corners"]),  # unmarked; x from 40 to 20
        # three turns with one, two and two marks
        ("What is at <bbox>?", [[1, 2, 11, 12]], []),
        ("And at <bbox> and <bbox>?", [[20, 20, 30, 30], [40, 20, 50, 30]], []),
        ("Which are red?", [[5, 5, 9, 9], [7, 7, 12, 12]], ["leak_answer_box"]),
        # a point: the pixel about 12, 13
        ("Point at it.", [[11.5, 12.5, 12.5, 13.5]], ["degenerate", "leak_answer_box"]),
        ("Compare <bbox> with <bbox>.", [[1, 1, 5, 5]], []),  # the other box is of the other image
    ],
)
def test_boxes(result, question, boxes, flags) -> None:
    row = result[0]["wide.jpg", question]
    assert row["flags"] == flags
    assert [pytest.approx(box, abs=1e-5) for box in boxes] == row["boxes"]


def test_without_boxes_and_without_images(result) -> None:
    rows, _ = result
    assert rows["tall.png", "What is the weather?"]["flags"] == ["no_evidence"]
    assert "Who are you?" not in {question for _, question in rows}


def test_rejected(result) -> None:
    messages = [(line["record"], line["message"]) for line in result[1]]
    assert [record for record, _ in messages] == [8, 9, 10]
    for (_, message), words in zip(messages, ["bbox_type", "2 <image> in the text for 1 images", "JSON"], strict=True):
        assert words in message


def test_the_sidecar_has_the_ids_that_the_trainer_asks_for(tmp_path: Path) -> None:
    table = read_regions(annotated(make(tmp_path), tmp_path))
    assert sample_id("ms_swift", "wide.jpg", 2, "Which are red?") in table
