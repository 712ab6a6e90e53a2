"""What every reader is: files in, questions out.

A reader is a dataclass whose fields are its keys in a configuration. It is asked in two steps, since records are read
in order by every process, while only the one that owns a record turns it into questions:

    records()  ─► raw record ─► parse() ─► record as `schema` ─► questions() ─► Question, Question, ...
    every process               the record's owner
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from data_prep.config import ConfigError
from data_prep.data_source import existing_paths
from data_prep.question import Question, RecordError
from data_prep.streams import LazyRow, Line, Stream

# Types of schemas.
Pixels = Annotated[int, Field(gt=0, le=1_000_000)]  # a side of an image
Id = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]  # 7 as well as "7"
XYXY = tuple[float, float, float, float]


@dataclass(frozen=True)
class Source(ABC):
    """A reader. Subclasses are frozen dataclasses.

    Class attributes:
        schema: of one record; what does not fit is rejected by name.
        file_keys: the fields that name files (a path or a glob); optional ones may be None.
        trains_itself: the trainer reads the source's own file, so that no samples are written beside the regions.
    """

    schema: ClassVar[TypeAdapter[Any]]
    file_keys: ClassVar[tuple[str, ...]]
    trains_itself: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for key in self.file_keys:
            value = getattr(self, key)
            if value is not None and not existing_paths(value):
                raise ConfigError(f"{key}: no such file or folder: {value}")

    def files(self) -> list[Path]:
        """Every file and folder of annotations that is read, for the manifest's hashes."""
        return [path for key in self.file_keys if (value := getattr(self, key)) for path in existing_paths(value)]

    def prepare(self, folder: Path, image_root: Path | None) -> Self:
        """The reader that workers get: with look-up tables built in `folder`, with a frame measured on the data."""
        return self

    @abstractmethod
    def records(self) -> Stream:
        """Raw records in the file's order."""

    @abstractmethod
    def questions(self, record: Any) -> Iterator[Question | RecordError]:
        """The questions of a record that fits `schema`, or in place of one of them why it cannot be used.

        Raises:
            RecordError: nothing of the record can be used.
        """

    def parse(self, raw: Any) -> Any:
        """A raw record as `schema` has it; RecordError where it does not fit."""
        try:
            if isinstance(raw, Line):
                return self.schema.validate_json(raw.text)
            return self.schema.validate_python(raw.load() if isinstance(raw, LazyRow) else raw)
        except ValidationError as error:
            raise RecordError("schema", first_error(error)) from None


def look_up(adapter: TypeAdapter[Any], value: Any, name: str) -> Any:
    """A value of a look-up table as its schema has it; RecordError names it where it does not fit."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        raise RecordError("schema", first_error(error, name)) from None


def first_error(error: ValidationError, *name: str) -> str:
    """The first thing wrong with a value of that name: its place and what is wrong."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join([*name, *map(str, first['loc'])]) or 'record'}: {first['msg']}"


def majority(answers: Sequence[str]) -> str:
    """The most frequent of several annotators' answers, the first of equally frequent ones; "" of none."""
    return Counter(answers).most_common(1)[0][0] if answers else ""


def by_votes(answers: Sequence[str]) -> list[str]:
    """The different answers that are not blank: the most frequent first, of equally frequent ones the first given."""
    return [answer for answer, _ in Counter(answers).most_common() if answer.strip()]


def xywh(x: float, y: float, width: float, height: float) -> XYXY:
    """A box given by its corner and size."""
    return x, y, x + width, y + height
