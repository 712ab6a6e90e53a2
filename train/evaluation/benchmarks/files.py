"""Find the official files of a benchmark by name, and check their records one by one. All errors are `DataError`s."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from data_prep.common.errors import DataError
from data_prep.files.streams import JsonLine
from data_prep.sources.base import first_error

T = TypeVar("T")


def official_file(path: Path, name: str) -> Path:
    """Return `path` if it is a file, else the file called `name` in that folder."""
    if path.is_file():
        return path
    file = path / name
    if not file.is_file():
        raise DataError(f"{path}: no file {name} in it")
    return file


def numbered(path: Path, schema: type[T], raws: Iterable[Any]) -> Iterator[tuple[str, T]]:
    """Yield (name for messages, record) for a list's records, counted from 0, or a JSONL file's lines, from 1."""
    adapter = TypeAdapter(schema)
    for number, raw in enumerate(raws):
        is_line = isinstance(raw, JsonLine)
        name = f"{path}: line {raw.number}" if is_line else f"{path}: record {number}"
        yield name, parsed(adapter, raw.load() if is_line else raw, name)


def keyed(path: Path, schema: type[T], pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, str, T]]:
    """Yield (name for messages, key, record) for a mapping's records; a repeated key is an error."""
    adapter, seen = TypeAdapter(schema), set()
    for key, raw in pairs:
        name = f"{path}: record {key!r}"
        if key in seen:
            raise DataError(f"{name}: the key occurs twice")
        seen.add(key)
        yield name, key, parsed(adapter, raw, name)


def by_key(records: Iterable[tuple[str, T]], key: Callable[[T], Any], noun: str) -> dict[Any, T]:
    """Index records by a key; DataError names the second `noun` of one."""
    index: dict[Any, T] = {}
    for name, record in records:
        if key(record) in index:
            raise DataError(f"{name}: a second {noun} {key(record)}")
        index[key(record)] = record
    return index


def parsed(schema: TypeAdapter[T], raw: Any, name: str) -> T:
    """Parse a record by its schema; DataError names it if it does not fit."""
    try:
        return schema.validate_python(raw)
    except ValidationError as error:
        raise DataError(f"{name}: {first_error(error)}") from None


def checked_letter(name: str, answer: str, choices: int) -> str:
    """Return the answer, which must be the letter of an option; `read_questions` refuses an empty one."""
    letters = ascii_uppercase[:choices]
    if answer and (len(answer) != 1 or answer not in letters):
        raise DataError(f"{name}: answer {answer!r} is none of the options {', '.join(letters)}")
    return answer
