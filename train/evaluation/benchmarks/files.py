"""Official files of a benchmark: found by name, their records checked one by one. All errors are `DataError`s."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from data_prep.common.errors import DataError
from data_prep.files.streams import JsonLine
from data_prep.sources.base import first_error

T = TypeVar("T")


def official_file(path: Path, name: str) -> Path:
    """`path` itself where it is a file, else the file called `name` in that folder."""
    if path.is_file():
        return path
    file = path / name
    if not file.is_file():
        raise DataError(f"{path}: no file {name} in it")
    return file


def numbered(path: Path, schema: TypeAdapter[T], raws: Iterable[Any]) -> Iterator[tuple[str, T]]:
    """(name for messages, record) of the records of a list or the lines of a JSONL file, counted from 0 and 1."""
    for number, raw in enumerate(raws):
        if isinstance(raw, JsonLine):
            yield (name := f"{path}: line {raw.number}"), parsed(schema, raw.load(), name)
        else:
            yield (name := f"{path}: record {number}"), parsed(schema, raw, name)


def keyed(path: Path, schema: TypeAdapter[T], pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, str, T]]:
    """(name for messages, key, record) of the records of a mapping; a key that comes twice is an error."""
    seen = set()
    for key, raw in pairs:
        name = f"{path}: record {key!r}"
        if key in seen:
            raise DataError(f"{name}: the key is there twice")
        seen.add(key)
        yield name, key, parsed(schema, raw, name)


def parsed(schema: TypeAdapter[T], raw: Any, name: str) -> T:
    """A record as its schema has it."""
    try:
        return schema.validate_python(raw)
    except ValidationError as error:
        raise DataError(f"{name}: {first_error(error)}") from None


def checked_letter(name: str, answer: str, choices: int) -> str:
    """The answer, which must be the letter of an option; none at all is left for the check of answers."""
    letters = ascii_uppercase[:choices]
    if answer and (len(answer) != 1 or answer not in letters):
        raise DataError(f"{name}: answer {answer!r} is none of the options {', '.join(letters)}")
    return answer
