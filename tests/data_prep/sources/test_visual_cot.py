"""Visual-CoT's metadata: each box as a region, each defect of the set by name."""

import pyarrow.parquet as pq
import pytest

from tests.data_prep.fixtures import annotated, rows_of
from tests.data_prep.fixtures.visual_cot import make


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("cot"))


# All on an image of 200 x 100, but for "A number?" (100 x 200).
@pytest.mark.parametrize(
    ("question", "region", "flags"),
    [
        ("One?", [10, 20, 60, 80], []),
        ("Several?", [10, 5.25, 150, 80], []),  # x: min(10, 100.5) .. max(60, 150), y: min(20, 5.25) .. max(80, 30)
        ("A number?", [0, 0, 10, 10], []),
        ("Beyond?", [150, 50, 200, 90], ["oob_clipped"]),  # x2: min(260, 200)
        ("Flat?", [29.5, 40, 30.5, 60], ["degenerate"]),  # one pixel about x = 30
        ("Twice?", [10, 20, 60, 80], ["duplicate_box"]),
        ("Swapped?", [10, 20, 60, 80], ["swapped_corners"]),
        ("Larger?", [10, 20, 60, 80], ["size_mismatch"]),  # annotated on 400 x 200: all halves
    ],
)
def test_regions(result, question, region, flags) -> None:
    (row,) = [row for (_, asked), row in result[0].items() if asked == question]
    assert (row["region"], row["method"], row["flags"]) == (region, "human", flags)


@pytest.mark.parametrize(
    ("question", "flags"),
    [
        ("No box?", ["no_evidence"]),
        ("Outside?", ["bad_box", "lost_box", "no_evidence"]),
        ("Turned?", ["lost_box", "no_evidence", "size_mismatch"]),  # 200 / 100 across, 100 / 200 down: no one scale
    ],
)
def test_whole_images(result, question, flags) -> None:
    row = result[0]["cot/dude/a.jpg", question]
    assert (row["region"], row["method"], row["score"], row["flags"]) == (None, "global", 0.0, flags)


# x: min(12, 6) .. max(60, 30), y: min(8, 20) .. max(40, 75)
@pytest.mark.parametrize("image", ["cot/textvqa/textcap.jpg", "cot/visual7w/v7w.jpg"])
def test_folders_that_are_not_called_as_their_set(result, image) -> None:
    (row,) = [row for (found, _), row in result[0].items() if found == image]
    assert (row["region"], row["flags"]) == ([6, 8, 60, 75], [])


def test_without_a_folder_to_look_into_the_published_name_is_taken(tmp_path) -> None:
    rows, _ = rows_of(make, tmp_path, images="trust", image_root=None)
    assert {image for image, _ in rows if "dude" not in image} == {"cot/textvqa/textcap.jpg", "cot/v7w/v7w.jpg"}


def test_rejected(result) -> None:
    reasons = [(line["record"], line["reason"]) for line in result[1]]
    assert reasons == [(14, "no_image"), (15, "schema"), (16, "schema"), (11, "duplicate")]
    assert "answer" in result[1][1]["message"]


def test_answers_are_texts(tmp_path) -> None:
    samples = pq.read_table(annotated(make(tmp_path), tmp_path) / "samples").to_pylist()
    said = {sample["messages"][0]["content"]: sample["messages"][1]["content"] for sample in samples}
    answers = {question: said[f"<image>\n{question}"] for question in ("One?", "A number?", "A fraction?", "Possible?")}
    assert answers == {"One?": "yes", "A number?": "7", "A fraction?": "0.5", "Possible?": "first"}
