"""ms-swift: pixels and fractions, boxes of the turn that marks them, the first image's alone. wide.jpg is 64x40."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.data_prep.fixtures import annotated, rows_of
from tests.data_prep.fixtures.ms_swift import make


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("ms_swift"))


@pytest.mark.parametrize(
    ("question", "boxes", "flags"),
    [
        ("Find a dog", [[10, 5, 30, 25]], ["leak_answer_box"]),
        # norm1: 0.1 * 64, 0.25 * 40, 0.5 * 64, 0.75 * 40
        ("Where is it all?", [[6.4, 10, 32, 30]], ["leak_answer_box"]),
        ("Where is it?", [[20, 10, 40, 30]], ["swapped_corners"]),  # unmarked; x from 40 to 20
        # after turns with one and two marks
        ("Which are red?", [[5, 5, 9, 9], [7, 7, 12, 12]], ["leak_answer_box"]),
        # a point: the pixel about 12, 13
        ("Point at it.", [[11.5, 12.5, 12.5, 13.5]], ["degenerate", "leak_answer_box"]),
        ("Which is larger?", [[1, 1, 5, 5]], []),  # the other box is of the other image
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
    expected = [
        (1, "the question holds <bbox>"),
        (3, "the question holds <bbox>"),
        (3, "the question holds <bbox>"),
        (8, "bbox_type"),
        (9, "2 <image> in the text for 1 images"),
        (11, "2 <ref-object> in the text for 1 in objects.ref"),
        (12, "JSON"),
    ]
    assert [line["record"] for line in result[1]] == [record for record, _ in expected]
    assert all(words in line["message"] for line, (_, words) in zip(result[1], expected, strict=True))
    assert [line["record"] for line in result[1] if line["reason"] == "marks"] == [1, 3, 3, 11]


def test_nobody_trains_on_marks(tmp_path: Path) -> None:
    samples = pq.read_table(annotated(make(tmp_path), tmp_path) / "samples").to_pylist()
    said = {tuple(part["content"] for part in sample["messages"]): sample["images"] for sample in samples}
    assert said == {
        ("<image>\nWhere is it?", "There."): ["wide.jpg"],
        ("<image><image>\nWhich is larger?", "The first."): ["wide.jpg", "tall.png"],
        ("<image>\nWhat is the weather?", "Fine."): ["tall.png"],
    }


def test_names_go_on_behind_those_of_the_system_text(tmp_path: Path) -> None:
    reader = make(tmp_path)
    said = [("system", "You see <ref-object>."), ("user", "<image>Is it <ref-object>?"), ("assistant", "<ref-object>!")]
    messages = [{"role": role, "content": text} for role, text in said]
    raw = {"messages": messages, "images": ["wide.jpg"], "objects": {"ref": ["a dog", "a cat", "A cat"], "bbox": []}}
    (question,) = reader.questions(reader.parse(raw))
    assert (question.text, question.answer) == ("Is it a cat?", "A cat!")
