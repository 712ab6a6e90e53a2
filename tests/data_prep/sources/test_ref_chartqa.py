"""RefChartQA: the boxes' column is found, in either form."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.common.errors import ConfigError
from data_prep.sources.ref_chartqa import RefChartQA
from tests.data_prep.fixtures import rows_of
from tests.data_prep.fixtures.ref_chartqa import make, rows, write


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("refchartqa"))


@pytest.mark.parametrize(
    ("image", "question", "region", "flags"),
    [
        ("1.png", "How many in 2020?", [80, 20, 100, 88], []),  # 80 + 20, 20 + 68
        ("1.png", "What is the sum?", [20, 20, 100, 88], []),  # with 20, 60, 40, 88
        ("1.png", "How many colours?", None, ["no_evidence"]),
        ("1.png", "What is null?", None, ["no_evidence"]),
        ("q5.png", "What is tall?", [10, 20, 40, 170], []),  # without a path: the id; 10 + 30, 20 + 150
        ("tall.png", "What is named elsewhere?", [10, 20, 40, 170], []),  # in imgname
        ("tall.png", "What has no id?", [20, 30, 50, 180], []),
        ("1.png", "What is beyond?", [180, 20, 200, 88], ["oob_clipped"]),  # min(180 + 40, 200)
    ],
)
def test_regions(result, image, question, region, flags) -> None:
    row = result[0][image, question]
    assert (row["region"], row["flags"]) == (region, flags)
    assert row["method"] == ("global" if region is None else "human")


def test_rejected(result) -> None:
    assert [(line["record"], line["reason"], line["question"]) for line in result[1]] == [
        (6, "no_image", "Which image?"),
        (9, "no_name", ""),
        (10, "no_name", ""),
    ]


# The same four numbers 80, 20, 20, 68: a corner and a size, or two corners in the wrong order.
@pytest.mark.parametrize(("form", "region"), [("xywh", [80, 20, 100, 88]), ("xyxy", [20, 20, 80, 68])])
def test_boxes_of_four_numbers(tmp_path: Path, form, region) -> None:
    def numbers(folder: Path) -> RefChartQA:
        table = [{**row, "grounding": [[80, 20, 20, 68]]} for row in rows()[:1]]
        return RefChartQA(annotations=write(folder, table, pa.list_(pa.list_(pa.int64()))), box_form=form)

    assert rows_of(numbers, tmp_path)[0]["1.png", "How many in 2020?"]["region"] == region


def test_the_column_must_be_clear(tmp_path: Path) -> None:
    path = make(tmp_path).annotations
    with pytest.raises(ConfigError, match="has no column 'bbox', but"):
        RefChartQA(annotations=path, boxes="bbox").prepare(tmp_path, None)
    table = pq.read_table(path)
    pq.write_table(table.append_column("other", table.column("grounding")), path)
    with pytest.raises(ConfigError, match=r"name the column .*\['grounding', 'other'\]"):
        RefChartQA(annotations=path).prepare(tmp_path, None)
    assert RefChartQA(annotations=path, boxes="other").prepare(tmp_path, None).boxes == "other"
    pq.write_table(table.drop_columns(["grounding"]), path)
    with pytest.raises(ConfigError, match="name the column"):
        RefChartQA(annotations=path).prepare(tmp_path, None)
