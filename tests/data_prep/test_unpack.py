"""Embedded images become files: byte for byte, once, below the root or not at all."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep import unpack as program
from data_prep.schema.records import conversation, image_names, read_records
from tests.data_prep.fixtures.llava_next import SCHEMA, encoded, row, rows, write


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_images_are_written_unchanged_and_bad_rows_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, root = write(tmp_path), tmp_path / "sub" / "images"
    program.main([str(path), str(root)])
    table = rows()
    images = [each["image"]["bytes"] if each["image"] else None for each in table]
    assert files_below(root) == {"vg/1.jpg": images[0], "tall.png": images[1], "vg/r.jpg": images[3]}
    assert not (tmp_path / "sub" / "o.jpg").exists()
    told = capsys.readouterr()
    for number, message in [
        (4, "above max_image_pixels"),
        (5, "vg/n.jpg: not an image"),
        (6, "outside"),
        (7, "another image"),
    ]:
        assert any(line.startswith(f"row {number}: ") and message in line for line in told.err.splitlines())
    assert "3 images written, 4 of 8 rows refused" in told.out


def test_the_conversations_name_the_files(tmp_path: Path) -> None:
    path, records = write(tmp_path), tmp_path / "next.jsonl"
    program.main([str(tmp_path / "train-*.parquet"), str(tmp_path / "images"), f"conversations={records}"])
    assert not list(tmp_path.glob(".*"))
    read = [record for _, record in read_records(str(records))]
    assert [image_names("", record) for record in read] == [["vg/1.jpg"], ["tall.png"], [], ["vg/r.jpg"]]
    _, turns = conversation("", read[1], 1)
    assert [(turn.question, turn.answer) for turn in turns] == [
        ("Where?", "[0.300, 0.100, 0.700, 0.200]"),
        ("Who?", "I"),
    ]
    assert [record["data_source"] for record in read] == ["vg", "chartqa", "evol", "vg"]
    assert path.exists()


def test_it_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, records = write(tmp_path), tmp_path / "next.jsonl"
    words = [str(path), str(tmp_path / "images"), f"conversations={records}"]
    atomically, written = program.write_atomically, []

    def stopped(target: Path, content: bytes) -> None:
        if written:
            raise KeyboardInterrupt
        atomically(target, content)
        written.append(target)

    monkeypatch.setattr(program, "write_atomically", stopped)
    with pytest.raises(SystemExit, match="130"):
        program.main(words)
    assert list(files_below(tmp_path / "images")) == ["vg/1.jpg"]
    assert not records.exists()
    monkeypatch.setattr(program, "write_atomically", lambda *each: (written.append(each[0]), atomically(*each)))
    program.main(words)
    assert [target.name for target in written] == ["1.jpg", "tall.png", "r.jpg"]  # none twice
    assert len(records.read_text().splitlines()) == 4


def test_rows_without_bytes_keep_their_path(tmp_path: Path) -> None:
    table = [row("a", "vg", {"bytes": None, "path": "there.jpg"}, "What?", "It.")]
    pq.write_table(pa.Table.from_pylist(table, SCHEMA), tmp_path / "a.parquet")
    program.main([str(tmp_path / "a.parquet"), str(tmp_path / "images"), f"conversations={tmp_path / 'a.jsonl'}"])
    assert json.loads((tmp_path / "a.jsonl").read_text())["image"] == "there.jpg"


def test_images_named_in_a_column_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wide, tall, small = encoded(20, 10), encoded(10, 20), encoded(5, 5)
    cells = [("a", "1.jpg", wide), (None, "2.jpg", tall), (None, None, small), ("b", "", small)]
    columns = {"id": [key for key, *_ in cells], "imgname": [name for _, name, _ in cells]}
    image = pa.array([{"bytes": content, "path": None} for *_, content in cells], SCHEMA.field("image").type)
    pq.write_table(pa.table({**columns, "image": image}), tmp_path / "a.parquet")
    program.main([str(tmp_path / "a.parquet"), str(tmp_path / "images")])
    assert files_below(tmp_path / "images") == {"1.jpg": wide, "2.jpg": tall, "b.jpg": small}
    assert "row 2: the embedded image has no name" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["../../etc/x", "/etc/x", "http://x", ""])
def test_an_id_is_no_way_out_of_the_root(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = [row(key, "vg", {"bytes": encoded(9, 9), "path": None}, "What?", "It.")]
    pq.write_table(pa.Table.from_pylist(table, SCHEMA), tmp_path / "a.parquet")
    program.main([str(tmp_path / "a.parquet"), str(tmp_path / "images")])
    assert files_below(tmp_path / "images") == {}
    assert "row 0: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"no parquet", "not parquet"), (None, "no such file"), ({"id": ["a"]}, "no column 'image'")],
)
def test_wrong_calls_end_in_one_line(tmp_path: Path, content, message, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        pq.write_table(pa.table(content), path)
    with pytest.raises(SystemExit, match="2"):
        program.main([str(path), str(tmp_path / "images")])
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert message in told[0]
