"""A-OKVQA: direct answers, COCO's objects, an image file of another size than COCO states."""

from pathlib import Path

import pyarrow.parquet as pq

from tests.data_prep.fixtures import annotated, rows_of
from tests.data_prep.fixtures.aokvqa import make

NINE, TWENTY_FIVE = "000000000009.jpg", "000000000025.jpg"


def test_regions_and_rejections(tmp_path: Path) -> None:
    rows, rejected = rows_of(make, tmp_path)
    # The cat: 20, 10, 40, 30 as x, y, width, height. The dining table: 0, 30, 120, 50.
    assert rows[NINE, "What does the cat like?"]["region"] == [20, 10, 20 + 40, 10 + 30]
    assert rows[NINE, "Who might sit at the dining table?"]["region"] == [0, 30, 120, 80]
    # COCO states 80x100, the file has 40x50: half of 5, 5, 5+20, 5+60 and of 40, 15, 40+20, 15+45.
    people = rows[TWENTY_FIVE, "What do the people wait for?"]
    assert people["boxes"] == [[2.5, 2.5, 12.5, 32.5], [20, 7.5, 30, 30]]
    assert people["region"] == [2.5, 2.5, 30, 32.5]
    assert people["flags"] == ["low_confidence", "size_mismatch"]
    assert rows[TWENTY_FIVE, "What drives there?"]["method"] == "global"
    assert [line["reason"] for line in rejected] == ["schema"]
    assert "image_id" in rejected[0]["message"]


def test_answers(tmp_path: Path) -> None:
    samples = pq.read_table(annotated(make(tmp_path), tmp_path) / "samples").to_pylist()
    said = {sample["messages"][0]["content"]: sample["messages"][1]["content"] for sample in samples}
    assert said["<image>\nWhat does the cat like?"] == "milk"  # fish, milk, milk
    assert len(said) == 4  # neither the question without answers nor that of the test split
