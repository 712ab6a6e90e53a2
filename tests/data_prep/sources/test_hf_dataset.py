"""Any data set of `datasets`: embedded images and paths, formats and frames of boxes. wide.jpg is 64x40."""

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep.common.errors import ConfigError
from data_prep.sources import Source
from tests.data_prep.fixtures import annotated, rows_of
from tests.data_prep.fixtures.hf_dataset import make, make_parquet


def test_regions_and_rejections(tmp_path: Path) -> None:
    rows, rejected = rows_of(make, tmp_path)
    # Fractions x, y, width, height: 0.25 * 64, 0.5 * 40, (0.25 + 0.25) * 64, (0.5 + 0.25) * 40.
    assert rows["wide.jpg", "One?"]["region"] == [16, 20, 32, 30]
    # Stored as 50x20, to be shown as 20x50, which is ignored: 0, 0, 0.2 * 50, 0.5 * 20 and
    # 0.5 * 50, 0.5 * 20 with more width and height than there is.
    turned = rows["turned.jpg", "Turned?"]
    assert (turned["width"], turned["height"]) == (50, 20)
    assert turned["boxes"] == [[0, 0, 10, 10], [25, 10, 50, 20]]
    assert turned["flags"] == ["exif_rotated", "oob_clipped"]
    assert rows["tall.png", "None?"]["flags"] == ["no_evidence"]
    assert rows["tall.png", "Three numbers?"]["flags"] == ["bad_box", "lost_box", "no_evidence"]
    assert [line["reason"] for line in rejected] == ["no_path", "bad_image", "schema"]


def test_sizes_of_embedded_images_need_no_files(tmp_path: Path) -> None:
    rows, _ = rows_of(make, tmp_path, images="trust", image_root=None)
    assert rows["wide.jpg", "One?"]["region"] == [16, 20, 32, 30]


def test_answers(tmp_path: Path) -> None:
    samples = pq.read_table(annotated(make(tmp_path), tmp_path) / "samples").to_pylist()
    assert sorted(sample["messages"][1]["content"] for sample in samples) == ["1", "yes"]  # "1" of 1, one, 1


def test_parquet_files_with_columns_of_other_names(tmp_path: Path) -> None:
    rows, rejected = rows_of(make_parquet, tmp_path)
    assert rows["wide.jpg", "Which 0?"]["boxes"] == [[1, 2, 30, 20]]  # the first of the two images
    assert rows["wide.jpg", "Which 1?"]["flags"] == ["no_evidence"]
    assert not rejected


@pytest.mark.parametrize("make_source", [make, make_parquet])
def test_a_missing_column_is_named_before_anything_is_read(make_source, tmp_path: Path) -> None:
    def wrong(folder: Path) -> Source:
        return replace(make_source(folder), boxes_column="bboxes")

    with pytest.raises(ConfigError, match="no column 'bboxes'"):
        rows_of(wrong, tmp_path)
