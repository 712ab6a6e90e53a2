"""Visual7W: the answer of a pointing question is a box."""

from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from tests.data_prep.fixtures import annotated, rows_of
from tests.data_prep.fixtures.pictures import draw
from tests.data_prep.fixtures.visual7w import make


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("v7w"))


@pytest.mark.parametrize(
    ("image", "question", "region", "flags"),
    [
        ("v7w_1.jpg", "Which hat is red?", [20, 10, 50, 50], []),  # 20 + 30, 10 + 40
        ("v7w_1.jpg", "Which hat is beyond the edge?", [180, 10, 200, 50], ["oob_clipped"]),  # min(180 + 40, 200)
        # asked of two: 20, 10, 50, 50 and 60, 5, 60 + 20, 5 + 15
        ("v7w_1.jpg", "Which hat is on a head?", [20, 5, 80, 50], ["low_confidence"]),
        ("v7w_2.jpg", "Which is tall?", [25, 0, 75, 200], []),
        ("v7w_1.jpg", "What is red?", None, ["no_evidence"]),  # telling: no box
    ],
)
def test_regions(result, image, question, region, flags) -> None:
    row = result[0][image, question]
    assert (row["region"], row["flags"]) == (region, flags)
    assert row["method"] == ("global" if region is None else "human")


def test_rejected_and_left_out(result) -> None:
    rows, rejected = result
    assert [(line["reason"], line["question"]) for line in rejected] == [
        ("missing_box", "Which hat is lost?"),
        ("schema", "Which hat is broken?"),  # its box has no x
        ("ambiguous", "What colour is it?"),  # blue, which was red before
        ("schema", ""),  # an image without questions
    ]
    assert not any(question == "Which is not trained on?" for _, question in rows)


def test_the_split_is_a_choice(tmp_path) -> None:
    draw(tmp_path / "images" / "v7w_3.jpg", 200, 100)
    rows, _ = rows_of(lambda folder: replace(make(folder), split="val"), tmp_path)
    assert list(rows) == [("v7w_3.jpg", "Which is not trained on?")]


def test_only_answers_in_words_are_samples(tmp_path) -> None:
    samples = pq.read_table(annotated(make(tmp_path), tmp_path) / "samples").to_pylist()
    assert sorted([said["content"] for said in sample["messages"]] for sample in samples) == [
        ["<image>\nWhat colour is it?", "Red."],
        ["<image>\nWhat is red?", "The hat."],
    ]
