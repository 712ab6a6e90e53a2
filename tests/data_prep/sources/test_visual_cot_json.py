"""Visual-CoT's training file: the box is asked for first, the answer comes last."""

import pyarrow.parquet as pq
import pytest

from tests.data_prep.fixtures import annotated, rows_of
from tests.data_prep.fixtures.visual_cot_json import TALL, WIDE, make


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("viscot"))


@pytest.mark.parametrize(
    ("image", "question", "region"),
    [
        (WIDE, "What is red?", [20, 10, 100, 70]),  # 200 x 100: 200 * .1, 200 * .3 - 50, 200 * .5, 200 * .6 - 50
        (TALL, "Which one?", [10, 20, 90, 40]),  # 100 x 200: 200 * .3 - 50, 200 * .1, 200 * .7 - 50, 200 * .2
        (WIDE, "Without text?", [20, 10, 100.5, 70]),  # as it stands behind ###
    ],
)
def test_regions(result, image, question, region) -> None:
    row = result[0][image, question]
    assert row["region"] == pytest.approx(region, abs=1e-4)
    assert (row["method"], row["flags"], row["turn"]) == ("human", [], 0)


@pytest.mark.parametrize("question", ["Nothing?", "Plain?"])
def test_without_a_box_the_whole_image(result, question) -> None:
    row = result[0][WIDE, question]
    assert (row["method"], row["region"], row["flags"]) == ("global", None, ["no_evidence"])


def test_rejected(result) -> None:
    assert [(line["record"], line["reason"]) for line in result[1]] == [(5, "no_image"), (6, "schema"), (7, "record")]


def test_samples_hold_the_question_proper_and_the_last_answer(tmp_path) -> None:
    samples = pq.read_table(annotated(make(tmp_path), tmp_path) / "samples").to_pylist()
    (red,) = [sample for sample in samples if "red" in sample["messages"][0]["content"]]
    assert [said["content"] for said in red["messages"]] == ["<image>\nWhat is red?", "A roof."]
    assert red["images"] == [WIDE]
    assert [said["type"] for said in red["messages"]] == ["gqa", None]
