"""Read annotation files of any size one record at a time, with the position reached for a progress bar.

A record is passed on as cheaply as its form allows, because most records that a process reads belong to another one:

    JSON list, JSON mapping   parsed while reading (ijson)      the item, or (key, value)
    JSON lines                not parsed                        a `JsonLine`, parsed by `load`
    parquet, `datasets`       not read                          a `LazyRow`, read by `load`
    CSV                       split                             {column: text}

All errors of a file are `DataError`s that name it.
"""

import codecs
import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import datasets
import ijson
import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.common.errors import DataError, one_line

BLOCK = 100  # rows of a parquet file that become Python objects together


class Stream(Iterator[Any]):
    """Iterate over records in the order of the file.

    Args:
        records: the records.
        size: of all records, in the stream's own unit (bytes, rows, files).
        position: returns how much of `size` was read.
    """

    def __init__(self, records: Iterable[Any], size: int, position: Callable[[], int]) -> None:
        self.size, self.position = size, position
        self._records = iter(records)

    def __next__(self) -> Any:
        return next(self._records)


class LazyRow:
    """Hold a row that is read when `load` is called."""

    __slots__ = ("_index", "_load")

    def __init__(self, load: Callable[[int], Any], index: int) -> None:
        self._load, self._index = load, index

    def load(self) -> Any:
        return self._load(self._index)


class JsonLine(NamedTuple):
    """Hold a line of a JSONL file; lines count from 1."""

    file: str
    number: int
    text: bytes

    def load(self) -> Any:
        with errors_as(f"{self.file}: line {self.number}: not JSON"):
            return json.loads(self.text)


@contextmanager
def errors_as(name: str) -> Iterator[None]:
    """Turn the error of a file that cannot be opened or parsed into a `DataError` that begins with `name`."""
    try:
        yield
    except DataError:
        raise  # it is named already
    except (OSError, ValueError, RecursionError, csv.Error, pa.ArrowException, ijson.JSONError) as error:
        raise DataError(f"{name}: {one_line(error)}") from None


def json_list(path: str | Path, prefix: str = "item") -> Stream:
    """Read the items of a JSON list; `prefix` is ijson's, such as `data.item` for the list in {"data": [...]}."""
    return _json(path, lambda file: ijson.items(file, prefix, use_float=True), b"[" if prefix == "item" else b"{")


def json_mapping(path: str | Path, prefix: str = "") -> Stream:
    """Read the (key, value) pairs of a JSON mapping, or of the one that ijson's `prefix` names."""
    return _json(path, lambda file: ijson.kvitems(file, prefix, use_float=True), b"{")


def _json(path: str | Path, parse: Callable[[BinaryIO], Iterable[Any]], opening: bytes) -> Stream:
    def records(file: BinaryIO) -> Iterator[Any]:
        start = file.read(1024)
        mark = len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0
        if start[mark:].lstrip()[:1] not in (opening, b""):
            raise DataError(f"{path}: expected {'a list' if opening == b'[' else 'a mapping'} of records")
        file.seek(mark)
        with errors_as(f"{path}: not JSON"):
            yield from parse(file)

    return _file_stream(path, records)


def _file_stream(path: str | Path, read: Callable[[BinaryIO], Iterable[Any]]) -> Stream:
    """Stream the records that `read` finds in an open file."""
    with errors_as(str(path)):
        file = Path(path).open("rb")  # noqa: SIM115 - the stream closes it
        size = os.fstat(file.fileno()).st_size

    def records() -> Iterator[Any]:
        with errors_as(str(path)), file:
            yield from read(file)

    return Stream(records(), size, lambda: size if file.closed else file.tell())


def chained(streams: Sequence[Stream]) -> Stream:
    """Read one stream after the other."""
    size = sum(stream.size for stream in streams)
    return Stream(chain.from_iterable(streams), size, lambda: sum(stream.position() for stream in streams))


def json_lines(path: str | Path) -> Stream:
    """Read a `JsonLine` for each line of a JSONL file that is not blank."""

    def records(file: BinaryIO) -> Iterator[JsonLine]:
        for number, text in enumerate(file, start=1):
            record = text.removeprefix(codecs.BOM_UTF8) if number == 1 else text
            if record and not record.isspace():
                yield JsonLine(str(path), number, record)

    return _file_stream(path, records)


def csv_rows(path: str | Path, encoding: str = "utf-8-sig") -> Stream:
    """Read the rows of a CSV file with a header."""
    return _file_stream(path, lambda file: csv.DictReader(io.TextIOWrapper(file, encoding=encoding, newline="")))


def parquet_rows(paths: Sequence[str | Path], columns: Sequence[str] | None = None, block: int = BLOCK) -> Stream:
    """Read a `LazyRow` for each row of the files, to be loaded in order; one row group is in memory at a time.

    Args:
        columns: columns to read; None: all.
        block: rows that become Python objects together; 1 for large rows, such as those that hold images.
    """
    starts: list[tuple[str | Path, int, int]] = []  # file, row group, rows
    for path in paths:
        with errors_as(f"{path}: not parquet"), pq.ParquetFile(path) as parquet:
            groups = parquet.metadata.num_row_groups
            starts += [(path, group, parquet.metadata.row_group(group).num_rows) for group in range(groups)]
    read = 0

    def records() -> Iterator[LazyRow]:
        nonlocal read
        for path, group, rows in starts:
            table = _RowGroup(path, group, columns, block)
            for row in range(rows):
                read += 1
                yield LazyRow(table.row, row)

    return Stream(records(), sum(rows for _, _, rows in starts), lambda: read)


def saved_dataset(folder: str) -> Stream:
    """Read a `LazyRow` for each row of a folder saved by `datasets`; images stay as they are stored."""
    with errors_as(f"{folder}: not a folder saved by `datasets` (parquet files are named by a glob)"):
        records = datasets.load_from_disk(folder)
    if isinstance(records, datasets.DatasetDict):
        raise DataError(f"{folder}: holds splits {sorted(records)}; name the folder of one of them")
    stored = records.with_format("arrow")  # otherwise `datasets` decodes images and applies their EXIF orientation
    read = 0

    def load(index: int) -> dict[str, Any]:
        with errors_as(f"{folder}: row {index}"):
            (row,) = stored[index].to_pylist()
        return row

    def rows() -> Iterator[LazyRow]:
        nonlocal read
        for read in range(1, len(records) + 1):
            yield LazyRow(load, read - 1)

    return Stream(rows(), len(records), lambda: read)


class _RowGroup:
    """Read one row group at its first requested row, and turn it into Python objects block by block."""

    def __init__(self, path: str | Path, group: int, columns: Sequence[str] | None, size: int) -> None:
        self.path, self.group, self.columns, self.size = path, group, columns, size
        self.table: pa.Table | None = None
        self.block, self.rows = -1, list[dict[str, Any]]()

    def row(self, index: int) -> dict[str, Any]:
        block, offset = divmod(index, self.size)
        if block != self.block:
            with errors_as(f"{self.path}: not parquet"):
                if self.table is None:
                    with pq.ParquetFile(self.path) as parquet:
                        self.table = parquet.read_row_group(self.group, columns=self.columns)
                self.block, self.rows = block, self.table.slice(block * self.size, self.size).to_pylist()
            if (block + 1) * self.size >= self.table.num_rows:
                self.table = None  # the reader continues with the next group while it still holds these rows
        return self.rows[offset]
