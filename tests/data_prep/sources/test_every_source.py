"""What holds for every reader: mutated records raise nothing but the project's errors, rows keep their invariants."""

import copy
import importlib
import random
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from crop_model.regions import union_box
from data_prep.annotate import RECORDS_PER_SHARD, AnnotateArguments, AnnotateJob, ShardRows, _plan
from data_prep.common.errors import DataError
from data_prep.derivation.derive import FLAGS
from data_prep.files.streams import JsonLine, LazyRow
from data_prep.schema.sample import REGION_METHODS
from data_prep.sources import SOURCES
from data_prep.work.shards import SHARD_SCHEMA, Work
from tests.data_prep.fixtures import rows_of

MUTATED_RECORDS = 20_000
JUNK: list[Any] = [
    None, "", " ", "\ud800", "\0", "<image>", "../../etc/passwd", "/etc/passwd", "https://example.org/a.jpg",
    "x" * 5000, 0, -1, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), True, [], {}, [[]], [None],
    {"a": {"b": []}}, [1, 2, 3], [1e400, 0, 0, 1], "[0.1, 0.2, 0.3, 0.4]", "###[1, 2", b"\xff\xfe", "(1234567)",
    "1,,2", "[/EN#1/people a]",
]  # fmt: skip


def made(name: str, folder: Path) -> tuple[Any, AnnotateJob]:
    """The reader of a fixture, prepared, and a job around it."""
    reader = importlib.import_module(f"tests.data_prep.fixtures.{name}").make(folder)
    root = folder / "images"
    arguments = AnnotateArguments(source=name, out=str(folder / "regions"), image_root=str(root), workers=1)
    work = Work(folder / "regions", name, _plan(arguments, reader), RECORDS_PER_SHARD)
    ready = reader.prepare(work.tables, root)
    return ready, AnnotateJob(work, ready, name, root, arguments)


def mutated(value: Any, rng: random.Random) -> Any:
    """A copy with one place of it changed: junk put there, a key or item dropped, doubled or moved."""
    value = copy.deepcopy(value)
    holder, key = _place(value, rng)
    if holder is None:
        return rng.choice(JUNK)
    change = rng.random()
    if change < 0.6 or not isinstance(holder, dict | list):
        holder[key] = rng.choice(JUNK)
    elif change < 0.8:
        del holder[key]
    elif isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), rng.choice([*JUNK, holder[key]]))
    else:
        other = rng.choice(list(holder))
        holder[key], holder[other] = holder[other], holder[key]
    return value


def _place(value: Any, rng: random.Random) -> tuple[Any, Any]:
    """A container somewhere in `value` and a key of it, at a random depth; (None, None): the value itself."""
    holder, key = None, None
    while isinstance(value, dict | list) and value:
        if holder is not None and rng.random() < 0.3:
            break
        holder = value
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        value = value[key]
    return holder, key


def loaded(records: Iterable[Any]) -> list[Any]:
    """Raw records as mutable Python objects; a fixture's lines that are not JSON are left out."""
    values = []
    for raw in records:
        with suppress(DataError):
            value = raw.load() if isinstance(raw, JsonLine | LazyRow) else raw
            values.append(list(value) if isinstance(value, tuple) else value)
    return values


@pytest.mark.parametrize("name", SOURCES)
def test_mutated_records_raise_only_our_errors(name: str, tmp_path: Path) -> None:
    """`add_record` turns a DataError into a rejection; anything else comes through and fails here."""
    reader, job = made(name, tmp_path)
    records = loaded(reader.records())
    assert records
    rng = random.Random(name)
    rows = ShardRows(job, frozenset())
    count = -(-MUTATED_RECORDS // len(SOURCES))
    for number in range(count):
        record = rng.choice(records)
        for _ in range(rng.randint(1, 3)):
            record = mutated(record, rng)
        before = len(rows.rows) + len(rows.rejected)
        rows.add_record(number, tuple(record) if isinstance(record, list) and len(record) == 2 else record)
        assert len(rows.rows) + len(rows.rejected) >= before
    assert rows.rejected  # the mutations do harm
    check_rows([dict(zip(SHARD_SCHEMA.names, row, strict=True)) for row in rows.rows])
    job.work.write_shard(0, rows.rows, rows.rejected)  # and what is left can be written


def check_rows(rows: list[dict[str, Any]]) -> None:
    """Boxes inside the region inside the image; the region their union; methods and flags that are documented."""
    for row in rows:
        assert row["method"] in REGION_METHODS
        assert set(row["flags"]) <= FLAGS.keys()
        assert 0 <= row["score"] <= 1
        assert (row["region"] is None) == (row["method"] == "global") == (not row["boxes"])
        if row["region"] is not None:
            boxes = [tuple(box) for box in row["boxes"]]
            assert tuple(row["region"]) == union_box(boxes)  # type: ignore[arg-type]
            for x1, y1, x2, y2 in boxes:
                assert 0 <= x1 < x2 <= row["width"]
                assert 0 <= y1 < y2 <= row["height"]


@pytest.mark.parametrize("name", SOURCES)
def test_rows_of_the_fixture(name: str, tmp_path: Path) -> None:
    make = importlib.import_module(f"tests.data_prep.fixtures.{name}").make
    rows, _ = rows_of(make, tmp_path)
    assert rows
    check_rows(list(rows.values()))


@pytest.mark.parametrize("name", SOURCES)
def test_the_stream_ends_where_its_size_says(name: str, tmp_path: Path) -> None:
    reader, _ = made(name, tmp_path)
    stream = reader.records()
    places = [stream.position() for _ in stream]
    assert places == sorted(places)
    assert places[-1] <= stream.size == stream.position()
