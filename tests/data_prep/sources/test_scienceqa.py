"""ScienceQA: choices in the question, the letter as answer; text alone is no row."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from data_prep.sources import Source
from tests.data_prep.fixtures import annotated, rows_of
from tests.data_prep.fixtures.scienceqa import make

FIRST = "Which is farthest north?\nA. West Virginia\nB. Louisiana\nC. Arizona"
SECOND = "What is it made of?\nContext: It shines.\nA. tin\nB. wood"


def test_rows_and_rejections(tmp_path: Path) -> None:
    rows, rejected = rows_of(make, tmp_path)
    assert set(rows) == {("train/1/image.png", FIRST), ("train/2/choice_0.png", SECOND)}
    for row in rows.values():
        assert (row["region"], row["method"], row["flags"]) == (None, "global", ["no_evidence"])
    assert [(line["reason"], line["question"]) for line in rejected] == [
        ("text_only", "Which word rhymes?"),
        ("bad_answer", "Which is fifth?"),
        ("schema", ""),
    ]


def test_answers_are_letters(tmp_path: Path) -> None:
    samples = pq.read_table(annotated(make(tmp_path), tmp_path) / "samples").to_pylist()
    assert {sample["messages"][1]["content"] for sample in samples} == {"A", "B"}


def test_another_split(tmp_path: Path) -> None:
    def of_test(folder: Path) -> Source:
        return replace(make(folder), split="test")  # type: ignore[call-arg]

    rows, rejected = rows_of(of_test, tmp_path)
    assert [image for image, _ in rows] == ["test/5/image.png"]
    assert [line["reason"] for line in rejected] == ["schema"]  # of no split
