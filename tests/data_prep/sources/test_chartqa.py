"""ChartQA: answers among the texts and values of a chart, names of the question among them too."""

import pyarrow.parquet as pq
import pytest

from tests.data_prep.fixtures import annotated, rows_of
from tests.data_prep.fixtures.chartqa import make

ONE, TWO = "train/png/1.png", "train/png/2.png"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("chartqa"))


# Bars of the chart: 12 at 20, 60, 20 + 20, 60 + 28; 30.5 at 80, 20, 80 + 20, 20 + 68. Labels: "2019" at 20, 90,
# 20 + 20, 90 + 8; "2020" at 80, 90, 80 + 20, 90 + 8; "tons" at 2, 40, 2 + 6, 40 + 20.
@pytest.mark.parametrize(
    ("image", "question", "region", "method"),
    [
        (ONE, "How many tons were there in 2020?", [80, 20, 100, 88], "ocr_match"),
        (ONE, "In which year were the fewest?", [20, 90, 40, 98], "ocr_match"),
        (ONE, "How much of 2019?", [20, 60, 40, 88], "ocr_match"),  # the label is a number here
        # both bars: min(20, 80), min(60, 20), max(40, 100), 88
        (ONE, "What is the sum of apples?", [20, 20, 100, 88], "object_match"),
        (ONE, "Which fruit is shown?", [20, 20, 100, 88], "ocr_match"),
        (ONE, "What is the sum?", None, "global"),  # 42.5 stands nowhere, and nothing is named
        (TWO, "What is shown?", None, "global"),  # a chart without annotations
    ],
)
def test_regions(result, image, question, region, method) -> None:
    row = result[0][image, question]
    assert (row["region"], row["method"]) == (region, method)


def test_rejected(result) -> None:
    assert [(line["record"], line["reason"]) for line in result[1]] == [
        (5, "no_image"),
        (6, "outside_root"),
        (7, "record"),  # its annotations are not JSON
        (8, "schema"),
    ]
    assert "3.json: not JSON" in result[1][2]["message"]


def test_answers_are_texts(tmp_path) -> None:
    samples = pq.read_table(annotated(make(tmp_path), tmp_path) / "samples").to_pylist()
    assert {sample["messages"][1]["content"] for sample in samples} == {
        "30.5",
        "2019",
        "42.5",
        "12",
        "Nothing",
        "Apples",
    }
