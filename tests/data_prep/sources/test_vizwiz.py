"""VizWiz-VQA-Grounding: bounds of polygons on images of 60x100."""

from pathlib import Path

import pyarrow.parquet as pq

from tests.data_prep.fixtures import annotated, rows_of
from tests.data_prep.fixtures.vizwiz import make


def test_regions_and_rejections(tmp_path: Path) -> None:
    rows, rejected = rows_of(make, tmp_path)
    by_question = {question: row for (_, question), row in rows.items()}
    # (10, 20), (30, 15), (25, 60): x from 10 to 30, y from 15 to 60.
    assert by_question["What is this?"]["region"] == [10, 15, 30, 60]
    # x from -5 to 70, clipped to 0 .. 60; y from -5 to 50, clipped to 0 .. 50.
    assert by_question["What colour?"]["region"] == [0, 0, 60, 50]
    assert by_question["What colour?"]["flags"] == ["oob_clipped"]
    # Stated as 120x200, twice the file: 20 .. 40 is 10 .. 20.
    assert by_question["Which brand?"]["region"] == [10, 10, 20, 20]
    assert by_question["Which brand?"]["flags"] == ["size_mismatch"]
    assert by_question["Which flavour?"]["flags"] == ["no_evidence"]  # the test split's form
    assert by_question["Where is it?"]["flags"] == ["bad_box", "lost_box", "no_evidence"]
    assert [(line["reason"], line["question"]) for line in rejected] == [("polygon", "What is that?"), ("schema", "")]
    assert "2 points" in rejected[0]["message"]
    assert "height" in rejected[1]["message"]


def test_answers(tmp_path: Path) -> None:
    samples = pq.read_table(annotated(make(tmp_path), tmp_path) / "samples").to_pylist()
    assert {sample["messages"][1]["content"] for sample in samples} == {"soup"}
