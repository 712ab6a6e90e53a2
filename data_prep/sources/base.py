"""Define a reader, which turns the files of a data set into questions.

A reader is a dataclass whose fields are its keys in a configuration. It works in two steps, because every process reads
the records in order, while only the process that owns a record turns it into questions:

    records()  ─► raw record ─► parse() ─► record as `schema` ─► questions() ─► Question, Question, ...
    every process               the record's owner
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cache
from operator import length_hint
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError

from data_prep.common.errors import RecordError
from data_prep.common.fill import refuse
from data_prep.files.lookup import Index
from data_prep.files.streams import JsonLine, LazyRow, Stream, chained, json_list
from data_prep.schema.data_source import existing_paths
from data_prep.schema.question import Question

# Types for schemas.
Pixels = Annotated[int, Field(gt=0, le=1_000_000)]  # a side of an image
Id = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]  # 7 as well as "7"
XYXY = tuple[float, float, float, float]

Questions = Iterator[Question | RecordError]  # a record's questions, an error in place of each unusable one
Items = Iterable[tuple[str, Any]]  # (key, value) of a look-up table


class Sized(BaseModel):
    """Hold the size of an image, as a record states it."""

    width: Pixels
    height: Pixels

    @property
    def size(self) -> tuple[int, int]:
        return self.width, self.height


class Corner(BaseModel):
    """Hold a box by its corner and size, which sources call either w and h or width and height."""

    x: float
    y: float
    w: float = Field(validation_alias=AliasChoices("w", "width"))
    h: float = Field(validation_alias=AliasChoices("h", "height"))

    def box(self) -> XYXY:
        return xywh(self.x, self.y, self.w, self.h)


class Embedded(BaseModel):
    """Hold an image in a table's cell, as `datasets` stores it."""

    path: str | None = None
    data: bytes | None = Field(default=None, alias="bytes")


class ImageCells(BaseModel):
    """Hold the cells of a table's row that contain and name its image."""

    id: Id | None = None
    image: Embedded | str | None = None
    imgname: str | None = None

    def image_of(self) -> Embedded:
        """Return the image with the row's path, from `image` or else from `imgname`."""
        if isinstance(self.image, Embedded):
            return Embedded(path=self.image.path or self.imgname, bytes=self.image.data)
        return Embedded(path=self.image or self.imgname)


@dataclass(frozen=True)
class Source(ABC):
    """Read one data set. Subclasses are frozen dataclasses.

    Class attributes:
        schema: schema of a record; a record that does not fit is rejected by name.
        file_keys: the fields that name files (a path or a glob), that of the records first; optional ones may be None.
        read: reads the raw records of a file.
        licence: licence of the annotations, as remembered from their publisher's page; a published card states it.
        trains_itself: whether the trainer reads the source's own file, so that no samples are written.
    """

    tables: Mapping[str, Index] = field(init=False, default_factory=dict, repr=False, compare=False)

    schema: ClassVar[TypeAdapter[Any]]
    file_keys: ClassVar[tuple[str, ...]] = ("annotations",)
    read: ClassVar[Callable[[Path], Stream]] = json_list
    licence: ClassVar[str] = "not known here"
    trains_itself: ClassVar[bool] = False

    def __post_init__(self) -> None:
        named = {key: value for key in self.file_keys if (value := getattr(self, key)) is not None}
        refuse(f"{key}: no such file or folder: {value}" for key, value in named.items() if not existing_paths(value))

    def files(self) -> list[Path]:
        """Return every file and folder of annotations that is read, for the manifest's hashes."""
        return [path for key in self.file_keys if (value := getattr(self, key)) for path in existing_paths(value)]

    def prepare(self, folder: Path, image_root: Path | None) -> Self:
        """Return the reader for the workers, with look-up tables built in `folder` or a frame measured on the data."""
        items = self.lookups().items()
        return self.having(tables={name: Index.build(folder / f"{name}.sqlite", table) for name, table in items})

    def lookups(self) -> dict[str, Items]:
        """Return the items of each look-up table that the workers need."""
        return {}

    def entry(self, table: str, key: str, kind: Any, name: str) -> Any | None:
        """Look up a value and parse it by its type; None if there is no such table or key.

        Raises:
            RecordError: the value does not fit; the message begins with `name`.
        """
        value = self.tables[table].get(key) if table in self.tables else None
        return None if value is None else look_up(kind, value, name)

    def having(self, **tables: Any) -> Self:
        """Return a copy with the fields that `prepare` fills, which are not keys of the configuration."""
        ready = copy(self)
        for name, value in tables.items():
            object.__setattr__(ready, name, value)
        return ready

    def records(self) -> Stream:
        """Read raw records in the order of the files."""
        return chained([type(self).read(path) for path in existing_paths(getattr(self, self.file_keys[0]))])

    @abstractmethod
    def questions(self, record: Any) -> Questions:
        """Yield the questions of a record that fits `schema`, with an error in place of each unusable one.

        Raises:
            RecordError: the whole record is unusable.
        """

    def parse(self, raw: Any) -> Any:
        """Parse a raw record by `schema`; RecordError if it does not fit."""
        try:
            if isinstance(raw, JsonLine):
                return self.schema.validate_json(raw.text)
            return self.schema.validate_python(raw.load() if isinstance(raw, LazyRow) else raw)
        except ValidationError as error:
            raise RecordError("schema", first_error(error)) from None


_adapter = cache(TypeAdapter)


def look_up(kind: Any, value: Any, name: str) -> Any:
    """Parse a value that lies beside a record by its type; RecordError names it if it does not fit."""
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise RecordError("schema", first_error(error, name)) from None


def first_error(error: ValidationError, *name: str) -> str:
    """Describe the first defect of a value called `name`: its location and the reason."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join([*name, *map(str, first['loc'])]) or 'record'}: {first['msg']}"


def keyed(items: Iterable[Any], key: str) -> Iterator[tuple[str, Any]]:
    """Yield items of a look-up table by the value of `key`; items without it are skipped."""
    for item in items:
        if isinstance(item, dict) and isinstance(item.get(key), int | str):
            yield str(item[key]), item


def listed(items: Sequence[Any]) -> Stream:
    """Read records that are in memory."""
    remaining = iter(items)
    return Stream(remaining, len(items), lambda: len(items) - length_hint(remaining))


def below(folder: str, path: str) -> str:
    """Return a path below image_root; `folder` may be ""."""
    return f"{folder}/{path}" if folder else path


def merged(questions: Iterable[Question | RecordError]) -> Questions:
    """Merge the questions of one image that have the same text.

    Questions with the same answer become one with the boxes of all, flagged `low_confidence` if these differ, because
    the intended box is unknown. Among different answers the first is used; each other one becomes an error `ambiguous`.
    A question that adds nothing becomes an error `duplicate`.
    """
    by_text: dict[str, Question] = {}
    for question in questions:
        if isinstance(question, RecordError):
            yield question
            continue
        first = by_text.setdefault(question.text.strip(), question)
        if first is question:
            continue
        new = set(map(tuple, question.boxes)) - set(map(tuple, first.boxes))
        if _folded(first.answer) != _folded(question.answer):
            message = f"the image has the same question with another answer, {first.answer!r}"
            yield RecordError("ambiguous", message, question.image, question.text)
        elif new:
            first.boxes = [*first.boxes, *(box for box in question.boxes if tuple(box) in new)]
            first.flags = [*first.flags, *question.flags, "low_confidence"]
        else:
            yield RecordError("duplicate", "the image has the same question already", question.image, question.text)
    yield from by_text.values()


def votes(answers: Sequence[str]) -> dict[str, int]:
    """Count the annotators per answer: the most frequent first, and the first given among equally frequent ones.

    Case and surrounding blanks do not make another answer, which is spelled as it first was; blank ones are skipped.
    """
    spelled: dict[str, str] = {}
    for answer in answers:
        spelled.setdefault(_folded(answer), answer.strip())
    counts = Counter(_folded(answer) for answer in answers if answer.strip())
    return {spelled[answer]: count for answer, count in counts.most_common()}


def majority(answers: Sequence[str]) -> str:
    """Return the first of `votes`, or ""."""
    return next(iter(votes(answers)), "")


def _folded(answer: str) -> str:
    return answer.strip().casefold()


def xywh(x: float, y: float, width: float, height: float) -> XYXY:
    """Convert a box from corner and size."""
    return x, y, x + width, y + height


def bounds(xs: Sequence[float], ys: Sequence[float]) -> XYXY:
    """Return the box around points."""
    return min(xs), min(ys), max(xs), max(ys)
