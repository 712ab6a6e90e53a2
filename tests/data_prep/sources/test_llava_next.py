"""LLaVA-NeXT-Data: embedded images, their sizes, and regions in their files once unpacked."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.schema.question import Question
from data_prep.sources.llava_next import COLUMNS, LlavaNext
from data_prep.sources.llava_text import measured_frame
from tests.data_prep.fixtures import rows_of
from tests.data_prep.fixtures.llava_next import SCHEMA, encoded, make, row, write


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("next"))


# 200 x 100: x = 200 u, y = 200 v - 50: 20, 10, 100, 70. 100 x 200: x = 200 u - 50, y = 200 v: 10, 20, 90, 40.
def test_regions(result) -> None:
    rows = result[0]
    wide = rows["vg/1.jpg", "What is in [0.100, 0.300, 0.500, 0.600]?"]
    assert wide["region"] == pytest.approx([20, 10, 100, 70], abs=1e-4)
    assert (wide["width"], wide["height"], wide["flags"]) == (200, 100, [])
    tall = rows["tall.png", "Where?"]  # without a path: the id, with the format's extension
    assert tall["region"] == pytest.approx([10, 20, 90, 40], abs=1e-4)
    assert tall["flags"] == ["leak_answer_box"]
    assert (rows["tall.png", "Who?"]["turn"], rows["tall.png", "Who?"]["method"]) == (1, "global")
    assert rows["vg/r.jpg", "What?"]["flags"] == ["exif_rotated", "no_evidence"]
    assert (rows["vg/r.jpg", "What?"]["width"], rows["vg/r.jpg", "What?"]["height"]) == (40, 20)
    # its bytes are a PNG of 100 x 200, while the file of that name has 200 x 100
    assert rows["vg/1.jpg", "Another?"]["flags"] == ["format_mismatch", "no_evidence", "size_mismatch"]
    assert len(rows) == 5


def test_rejected(result) -> None:
    assert [(line["record"], line["reason"]) for line in result[1]] == [
        (4, "too_large"),
        (5, "bad_image"),
        (6, "outside_root"),
    ]


def test_sizes_come_from_the_bytes_and_need_no_file(tmp_path: Path) -> None:
    def packed(folder: Path) -> LlavaNext:
        return LlavaNext(annotations=str(write(folder)))

    rows, rejected = rows_of(packed, tmp_path, images="trust", image_root=None)
    sizes = {image: (row["width"], row["height"]) for (image, _), row in rows.items() if image != "vg/1.jpg"}
    assert sizes == {"tall.png": (100, 200), "vg/r.jpg": (40, 20)}
    assert [line["reason"] for line in rejected] == ["too_large", "bad_image", "outside_root"]


# 200 x 100: y from .05 to .95 lies in the padding of the square, five times; 40 rows have no box, in 10 row groups.
def test_the_frame_is_measured_without_the_images_of_records_without_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = {"bytes": encoded(200, 100), "path": "a.jpg"}
    table = [row(f"{n}", "vg", image, "<image>\nWhat?", "It.") for n in range(40)]
    table += [row(f"b{n}", "vg", image, f"<image>\nAt [0.100, 0.05{n}, 0.500, 0.950]?", "It.") for n in range(5)]
    pq.write_table(pa.Table.from_pylist(table, SCHEMA), tmp_path / "train-0.parquet", row_group_size=4)
    read, groups = pq.ParquetFile.read_row_group, []

    def noted(file: pq.ParquetFile, group: int, columns: Sequence[str]) -> pa.Table:
        groups.extend([group] if "image" in columns else [])
        return read(file, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
    reader = LlavaNext(annotations=str(tmp_path / "train-*.parquet"))
    assert measured_frame(reader, None) == "unit"
    assert groups == [10, 11]  # rows 40 to 44


def test_kind_is_the_subset_a_record_is_from(tmp_path: Path) -> None:
    reader = make(tmp_path)
    kinds = []
    for raw in list(reader.records())[:3]:
        kinds += [question.kind for question in reader.questions(reader.parse(raw)) if isinstance(question, Question)]
    assert kinds == ["vg", "chartqa", "chartqa"]


def test_images_do_not_stay_in_memory(tmp_path: Path) -> None:
    image = encoded(400, 400, "BMP")  # 480 kB
    for part in range(2):
        rows = [row(f"{part}-{n}", "vg", {"bytes": image, "path": "a.bmp"}, "What?", "It.") for n in range(20)]
        pq.write_table(pa.Table.from_pylist(rows, SCHEMA), tmp_path / f"train-{part}.parquet", row_group_size=5)
    del rows
    reader = LlavaNext(annotations=str(tmp_path / "train-*.parquet"))
    before = pa.total_allocated_bytes()
    records = list(reader.records())  # as the annotation holds a shard's
    for raw in records:
        assert list(reader.questions(reader.parse(raw)))
        # of 40 images the row group of 5 that is read, and what its decoding and freeing takes
        assert pa.total_allocated_bytes() - before < 20 * len(image)
    assert tuple(records[0].load()) == COLUMNS
