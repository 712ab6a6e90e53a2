"""Shards: put together once, whoever is still at work; the same rows as a plain sort; nothing stale mixed in."""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_prep.common import atomic
from data_prep.common.errors import DataError
from data_prep.schema.sample import SCHEMA, read_regions
from data_prep.work import shards as module
from data_prep.work.shards import Work, rejection

PLAN = {"arguments": {"image_root": "images"}, "inputs": {}}


def row(record: int, question: str | None = None) -> tuple[Any, ...]:
    question = question or f"What is {record}?"
    key = hashlib.sha1(question.encode()).hexdigest()
    box = [0.0, 0.0, 4.0, 3.0]
    return key, "s", "a.jpg", 0, question, 4, 3, [box], box, "human", 1.0, [], "this", None, ["a.jpg"], record


def work_at(out: Path, plan: dict[str, Any] = PLAN, records_per_shard: int = 2) -> Work:
    return Work(out, "s", plan, records_per_shard)


def share(work: Work) -> None:
    """What a process does that has all shards to write, save its last step."""
    for number in range(2):
        if not work.has_shard(number):
            work.write_shard(number, [row(2 * number), row(2 * number + 1)], [])
    work.write_count(2)


# ---- another process finishes


def test_a_share_goes_on_after_another_finished(tmp_path: Path) -> None:
    """What the second had begun, and what it writes afterwards, does no harm and does not stay."""
    first, second = work_at(tmp_path / "regions"), work_at(tmp_path / "regions")
    share(first)
    assert first.finish(samples=True, more={})
    assert second.has_shard(1)
    second.write_shard(1, [row(2), row(3)], [])
    second.write_count(2)
    assert [path.name for path in tmp_path.iterdir()] == ["regions"]
    second.tables.mkdir(parents=True)  # as look-up tables are built
    share(second)
    assert second.finish(samples=True, more={})
    assert second.finish(samples=True, more={})
    assert [path.name for path in tmp_path.iterdir()] == ["regions"]
    assert len(read_regions(tmp_path / "regions")) == 4


def interrupt_at(line: int, act: Callable[[], object]) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that acts once, before the `line`-th line of shards.py or atomic.py that is run."""
    left = line

    def trace(frame: FrameType, event: str, value: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in (module.__file__, atomic.__file__):
            return None
        if event == "line":
            left -= 1
            if left == -1:
                act()
        return trace

    return trace


def test_another_finishes_before_any_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second starts and does its share; the first finishes before each of the lines this takes, one after the
    other."""
    monkeypatch.setattr(atomic.os, "fsync", lambda file: None)
    lines, fired = 0, True
    while fired:
        out = tmp_path / str(lines) / "regions"
        first = work_at(out)
        share(first)
        finished: list[bool] = []
        before = sys.gettrace()
        sys.settrace(interrupt_at(lines, lambda first=first, done=finished: done.append(first.finish(True, {}))))
        try:
            second = work_at(out)
            second.write_shard(0, [row(0), row(1)], [])
            second.write_count(2)
        finally:
            sys.settrace(before)
        fired = finished == [True]
        assert second.finish(samples=True, more={}), lines
        assert [path.name for path in out.parent.iterdir()] == ["regions"], lines
        lines += 1
    assert lines > 30


def test_a_folder_that_is_gone_before_all_was_done_is_an_error(tmp_path: Path) -> None:
    """The control: only a finished sidecar makes a missing folder right."""
    work = work_at(tmp_path / "regions")
    work._remove()
    with pytest.raises(FileNotFoundError):
        work.write_count(2)
    with pytest.raises(FileNotFoundError):
        work.write_shard(0, [row(0)], [])


# ---- what belongs together


def test_shards_of_another_size_or_version_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    share(work_at(tmp_path / "regions"))
    with pytest.raises(DataError, match=r"regions.work: shards of other"):
        work_at(tmp_path / "regions", records_per_shard=3)
    monkeypatch.setattr(module, "SHARD_VERSION", module.SHARD_VERSION + 1)
    with pytest.raises(DataError, match=r"regions.work: shards of other"):
        work_at(tmp_path / "regions")
    monkeypatch.undo()
    work = work_at(tmp_path / "regions")
    work.finish(samples=False, more={})
    manifest = json.loads((tmp_path / "regions" / "manifest.json").read_text())
    assert not {"shard_version", "records_per_shard"} & manifest.keys()  # the sidecar depends on neither
    assert work_at(tmp_path / "regions", records_per_shard=3).is_done()
    (tmp_path / "regions" / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        work_at(tmp_path / "regions")


def test_shards_without_a_plan_are_refused(tmp_path: Path) -> None:
    share(work_at(tmp_path / "regions"))
    (tmp_path / "regions.work" / "plan.json").unlink()
    with pytest.raises(DataError, match=r"regions.work: shards of other"):
        work_at(tmp_path / "regions")


# ---- putting together


def test_assembly_is_a_sort_that_reads_every_shard_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """60 shards of 50 rows, some of them repeated, in parts of about 250."""
    monkeypatch.setattr(module, "ROWS_PER_PART", 250)
    work = work_at(tmp_path / "regions")
    rows = [row(record, f"What is {record * record % 2017}?") for record in range(3000)]
    for number in range(60):
        work.write_shard(number, rows[50 * number : 50 * number + 50], [])
    work.write_count(60)
    opened = Counter[str]()

    def spy(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **options: Any) -> Any:
            opened[str(path)] += 1
            return function(path, *args, **options)

        return call

    monkeypatch.setattr(module.pq, "read_table", spy(pq.read_table))
    monkeypatch.setattr(module.pq, "ParquetFile", spy(pq.ParquetFile))
    assert work.finish(samples=True, more={})
    monkeypatch.undo()
    assert {opened[name] for name in opened if "shard-" in name} == {1}

    first = {each[0]: each for each in reversed(rows)}
    parts = [pq.read_table(path).to_pylist() for path in sorted((tmp_path / "regions").glob("part-*"))]
    assert len(parts) == 12
    assert min(map(len, parts)) > 50
    expected = [dict(zip(SCHEMA.names, first[key], strict=False)) for key in sorted(first)]
    assert [each for part in parts for each in part] == expected
    rejected = [json.loads(line) for line in (tmp_path / "regions" / "rejected.jsonl").read_text().splitlines()]
    assert sorted(line["record"] for line in rejected) == sorted({*range(3000)} - {each[-1] for each in first.values()})


def test_no_question_at_all_is_an_error_and_leaves_no_shard(tmp_path: Path) -> None:
    """A wrong image root rejects everything; the corrected run, which is another plan, starts afresh."""
    work = work_at(tmp_path / "regions")
    for number in range(3):
        work.write_shard(number, [], [rejection(number, "no_image" if number else "schema", "x", "", "")])
    work.write_count(3)
    work.tables.mkdir()
    message = r"regions: no question could be used, see \S+regions.work/rejected.jsonl: no_image 2 of 3$"
    with pytest.raises(DataError, match=message):
        work.finish(samples=True, more={})
    assert not (tmp_path / "regions").exists()
    assert len((tmp_path / "regions.work" / "rejected.jsonl").read_text().splitlines()) == 3
    assert not work.finish(samples=True, more={})  # of another share that waited
    assert {path.name for path in (tmp_path / "regions.work").iterdir()} == {"rejected.jsonl", "lock"}
    again = work_at(tmp_path / "regions", {**PLAN, "arguments": {"image_root": "pictures"}})
    share(again)
    assert again.finish(samples=True, more={})
    assert [path.name for path in tmp_path.iterdir()] == ["regions"]
