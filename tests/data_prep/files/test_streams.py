"""Streams: every form read in order, lazily, and whatever is wrong with a file is one error that names it."""

import codecs
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.common.errors import DataError
from data_prep.files.streams import (
    BLOCK,
    JsonLine,
    LazyRow,
    Stream,
    csv_rows,
    json_lines,
    json_list,
    json_mapping,
    parquet_rows,
    saved_dataset,
)

# What the JSON parser hands on as it is: whole numbers well below 64 bits, finite floats, text that UTF-8 can say.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
in_tmp_path = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def written(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@in_tmp_path
@given(st.lists(JSON, max_size=5))
def test_json_lists_are_what_the_json_module_reads(tmp_path: Path, records: list[Any]) -> None:
    text = json.dumps(records, ensure_ascii=False)
    assert list(json_list(written(tmp_path / "a.json", text))) == json.loads(text)
    nested = json.dumps({"info": {"data": [1]}, "data": records, "more": 3})
    assert list(json_list(written(tmp_path / "b.json", nested), "data.item")) == json.loads(text)


@in_tmp_path
@given(st.dictionaries(TEXT, JSON, max_size=5))
def test_json_mappings_are_what_the_json_module_reads(tmp_path: Path, records: dict[str, Any]) -> None:
    text = json.dumps(records)
    assert list(json_mapping(written(tmp_path / "a.json", text))) == list(json.loads(text).items())
    nested = json.dumps({"deep": {"er": records}, "x": [records]})
    assert list(json_mapping(written(tmp_path / "b.json", nested), "deep.er")) == list(records.items())


@in_tmp_path
@given(st.lists(JSON.filter(lambda value: value is not None), max_size=5))
def test_json_lines_are_what_the_json_module_reads(tmp_path: Path, records: list[Any]) -> None:
    text = "\n\n \t\n".join(map(json.dumps, records)) + "\n"
    lines = list(json_lines(written(tmp_path / "a.jsonl", text)))
    assert [line.load() for line in lines] == records
    assert [line.number for line in lines] == [1 + 3 * number for number in range(len(records))]


@pytest.mark.parametrize(
    ("read", "content", "records"),
    [
        (json_list, "[1, 2]", [1, 2]),
        (json_list, " \r\n" * 800 + "[1, 2]", [1, 2]),
        (json_mapping, '{"a": 1}', [("a", 1)]),
        (csv_rows, "a,b\n1,2\n", [{"a": "1", "b": "2"}]),
        (lambda path: [line.load() for line in json_lines(path)], "1\n2", [1, 2]),
        (lambda path: [line.load() for line in json_lines(path)], "", []),
        (lambda path: [line.text for line in json_lines(path)], '{"a": 1}\r\n\r\n', [b'{"a": 1}\r\n']),
    ],
)
def test_a_byte_order_mark_changes_nothing(
    read: Callable[[Path], Stream], content: str, records: list[Any], tmp_path: Path
) -> None:
    assert list(read(written(tmp_path / "a", content))) == records
    assert list(read(written(tmp_path / "b", codecs.BOM_UTF8 + content.encode()))) == records


BROKEN = {
    "truncated": (json_list, b'[{"a": 1}, {"a": 2}, {"a"'),
    "truncated mapping": (json_mapping, b'{"a": 1, "b": [1, '),
    "nothing": (json_list, b""),
    "something after it": (json_list, b"[1] [2]"),
    "another form": (json_list, b'{"a": 1}'),
    "another form still": (json_mapping, b"[1]"),
    "a number beyond 64 bits": (json_list, b"[1, 123456789012345678901234567890]"),
    "a number beyond a double": (json_list, b"[1, 1e999]"),
    "NaN": (json_list, b"[1, NaN]"),
    "Latin-1": (json_list, '["a", "é"]'.encode("latin-1")),
    "UTF-16": (json_list, "[1]".encode("utf-16")),
    "CSV in Latin-1": (csv_rows, "a\né\n".encode("latin-1")),
    "CSV with a field without end": (csv_rows, b'a\n"' + b"x" * 200_000),
    "not parquet": (lambda path: parquet_rows([path]), b"PAR1 or not"),
    "no folder": (lambda path: saved_dataset(str(path)), b""),
    "another folder": (lambda path: saved_dataset(str(path.parent)), b""),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_named_in_one_line(case: str, tmp_path: Path) -> None:
    read, content = BROKEN[case]
    path = written(tmp_path / "file", content)
    with pytest.raises(DataError, match=rf"^{tmp_path}") as caught:
        list(read(path))
    assert "\n" not in str(caught.value)


def test_what_stands_before_the_damage_is_read(tmp_path: Path) -> None:
    text = json.dumps([{"text": "word " * 5}] * RECORDS)
    stream, read = json_list(written(tmp_path / "a.json", text[: len(text) * 9 // 10])), 0
    with pytest.raises(DataError, match=r"a\.json: not JSON: .*premature EOF"):
        for _ in stream:
            read += 1
    assert RECORDS // 2 < read <= RECORDS * 9 // 10
    assert stream.position() == stream.size


@pytest.mark.parametrize("read", [json_list, json_mapping, json_lines, csv_rows, lambda path: parquet_rows([path])])
def test_a_missing_file_is_named(read: Callable[[str], Stream], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone.*No such file"):
        next(read(str(tmp_path / "gone")))


@pytest.mark.parametrize("text", [b"not JSON", b'{"a": 1', b"\xff", b"[" * 100_000])
def test_a_broken_line_is_named_and_others_go_on(text: bytes, tmp_path: Path) -> None:
    first, second, third = json_lines(written(tmp_path / "a.jsonl", b"1\n" + text + b"\n3\n"))
    assert (first.load(), third.load()) == (1, 3)
    with pytest.raises(DataError, match=r"a\.jsonl: line 2: not JSON: "):
        second.load()
    assert isinstance(second, JsonLine)


def _table(rows: int) -> pa.Table:
    structs = [{"bytes": bytes([row % 256]), "path": f"{row}.jpg"} if row % 3 else None for row in range(rows)]
    return pa.table(
        {
            "number": list(range(rows)),
            "text": [None if row % 5 == 0 else f"é{row}" for row in range(rows)],
            "boxes": pa.array([[[row + 0.5] * 4] * (row % 3) for row in range(rows)], pa.list_(pa.list_(pa.float64()))),
            "image": structs,
        }
    )


@pytest.mark.parametrize("rows", [0, 1, BLOCK, 2 * BLOCK + 1])
def test_lazy_rows_of_parquet_are_pyarrows_in_any_order(rows: int, tmp_path: Path) -> None:
    table = _table(rows)
    paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for path in paths:
        pq.write_table(table, path, row_group_size=BLOCK + 7)
    lazy = list(parquet_rows(paths))
    assert [row.load() for row in lazy] == table.to_pylist() * 2
    assert [row.load() for row in reversed(lazy)] == (table.to_pylist() * 2)[::-1]
    chosen = [row.load() for row in parquet_rows(paths, ["text"])]
    assert chosen == table.select(["text"]).to_pylist() * 2


def test_lazy_rows_of_a_saved_dataset_are_as_stored(tmp_path: Path) -> None:
    table = _table(10).drop_columns(["image"])
    exif = Image.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    Image.new("RGB", (4, 2)).save(content, "JPEG", exif=exif)
    stored = {"bytes": content.getvalue(), "path": "turned.jpg"}
    records = datasets.Dataset(table).add_column("image", [stored] * 10).add_column("images", [[stored]] * 10)
    records = records.cast_column("image", datasets.Image()).cast_column("images", datasets.List(datasets.Image()))
    records.select(range(9, -1, -1)).save_to_disk(tmp_path / "saved")  # an order of its own
    loaded = [row.load() for row in saved_dataset(str(tmp_path / "saved"))]
    expected = [row | {"image": stored, "images": [stored]} for row in reversed(table.to_pylist())]
    assert loaded == expected


def test_a_folder_of_splits_names_them(tmp_path: Path) -> None:
    split = datasets.Dataset.from_dict({"a": [1]})
    datasets.DatasetDict({"train": split, "test": split}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"holds splits \['test', 'train'\]"):
        saved_dataset(str(tmp_path / "saved"))


RECORDS = 20_000


def _write(form: str, folder: Path) -> Stream:
    """A stream of that form with `RECORDS` records, large enough to be read in pieces."""
    record = {"text": "word " * 5}
    match form:
        case "list":
            return json_list(written(folder / "a", json.dumps([record] * RECORDS)))
        case "mapping":
            return json_mapping(written(folder / "a", json.dumps(dict.fromkeys(map(str, range(RECORDS)), record))))
        case "lines":
            return json_lines(written(folder / "a", (json.dumps(record) + "\n") * RECORDS))
        case "csv":
            return csv_rows(written(folder / "a", "text\n" + "word word word\n" * RECORDS))
        case "parquet":
            pq.write_table(pa.table({"a": list(range(RECORDS))}), folder / "a", row_group_size=1000)
            return parquet_rows([folder / "a"])
    datasets.Dataset.from_dict({"a": list(range(RECORDS))}).save_to_disk(folder / "saved")
    return saved_dataset(str(folder / "saved"))


@pytest.mark.parametrize("form", ["list", "mapping", "lines", "csv", "parquet", "saved"])
def test_the_place_never_goes_back_and_ends_at_the_size(form: str, tmp_path: Path) -> None:
    stream = _write(form, tmp_path)
    places = [stream.position()]
    for _ in stream:
        places.append(stream.position())
    assert len(places) == RECORDS + 1
    assert places == sorted(places)
    assert 0 <= places[0] < places[RECORDS // 2] < stream.size  # told on the way, not at the end
    assert stream.position() == stream.size > 0


def test_rows_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    asked: list[int] = []
    row = LazyRow(asked.append, 7)
    assert asked == []
    row.load()
    assert asked == [7]
    pq.write_table(_table(3), tmp_path / "a.parquet")
    rows = list(parquet_rows([tmp_path / "a.parquet"]))
    written(tmp_path / "a.parquet", b"gone bad")
    with pytest.raises(DataError, match=r"a\.parquet: not parquet"):
        rows[0].load()
