"""What every reader is: files in, questions out.

A reader is a dataclass whose fields are its keys in a configuration. It is asked in two steps, since records are read
in order by every process, while only the one that owns a record turns it into questions:

    records()  ─► raw record ─► parse() ─► record as `schema` ─► questions() ─► Question, Question, ...
    every process               the record's owner
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, TypeAdapter, ValidationError

from data_prep.common.errors import ConfigError, RecordError
from data_prep.files.streams import JsonLine, LazyRow, Stream
from data_prep.schema.data_source import existing_paths
from data_prep.schema.question import Question

# Types of schemas.
Pixels = Annotated[int, Field(gt=0, le=1_000_000)]  # a side of an image
Id = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, int) else value)]  # 7 as well as "7"
XYXY = tuple[float, float, float, float]


class Corner(BaseModel):
    """A box by its corner and size, which sources call either w and h or width and height."""

    x: float
    y: float
    w: float = Field(validation_alias=AliasChoices("w", "width"))
    h: float = Field(validation_alias=AliasChoices("h", "height"))

    def box(self) -> XYXY:
        return xywh(self.x, self.y, self.w, self.h)


class Embedded(BaseModel):
    """An image in a cell of a table, as `datasets` stores one."""

    path: str | None = None
    data: bytes | None = Field(default=None, alias="bytes")


class ImageCells(BaseModel):
    """The cells of a table's row that hold and name its image; `image_of` makes one of them."""

    id: Id | None = None
    image: Embedded | str | None = None
    imgname: str | None = None

    def image_of(self) -> Embedded:
        """The image with the path that the row tells, in `image` or else as `imgname`."""
        if isinstance(self.image, Embedded):
            return Embedded(path=self.image.path or self.imgname, bytes=self.image.data)
        return Embedded(path=self.image or self.imgname)


@dataclass(frozen=True)
class Source(ABC):
    """A reader. Subclasses are frozen dataclasses.

    Class attributes:
        schema: of one record; what does not fit is rejected by name.
        file_keys: the fields that name files (a path or a glob); optional ones may be None.
        licence: of the annotations, from memory of their publisher's page, which a published card says.
        trains_itself: the trainer reads the source's own file, so that no samples are written beside the regions.
    """

    schema: ClassVar[TypeAdapter[Any]]
    file_keys: ClassVar[tuple[str, ...]]
    licence: ClassVar[str] = "not known here"
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

    def having(self, **tables: Any) -> Self:
        """A copy with fields set that are no keys: what `prepare` made."""
        ready = copy(self)
        for name, value in tables.items():
            object.__setattr__(ready, name, value)
        return ready

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
            if isinstance(raw, JsonLine):
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


def keyed(items: Iterable[Any], key: str) -> Iterator[tuple[str, Any]]:
    """Items of a look-up table by the value of `key`; those without cannot be asked for."""
    for item in items:
        if isinstance(item, dict) and isinstance(item.get(key), int | str):
            yield str(item[key]), item


def below(folder: str, path: str) -> str:
    """A path as it is below image_root, where `folder` may be ""."""
    return f"{folder}/{path}" if folder else path


def merged(questions: Iterable[Question | RecordError]) -> Iterator[Question | RecordError]:
    """The questions of one image, of those in the same words one.

    Where they have the same answer, it gets the boxes of all, and `low_confidence` where these differ: nobody can tell
    which place is meant. Of several answers the first stays, and in place of each other one comes an error `ambiguous`;
    in place of one that tells nothing new, `duplicate`.
    """
    kept: dict[str, Question] = {}
    for question in questions:
        if isinstance(question, RecordError):
            yield question
            continue
        first = kept.setdefault(question.text.strip(), question)
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
    yield from kept.values()


def votes(answers: Sequence[str]) -> dict[str, int]:
    """How many annotators gave each answer: the most frequent first, of equally frequent ones the first given.

    Case and blanks around it make no other answer, which is spelled as it was first; blank ones are left out.
    """
    spelled: dict[str, str] = {}
    for answer in answers:
        spelled.setdefault(_folded(answer), answer.strip())
    counts = Counter(_folded(answer) for answer in answers if answer.strip())
    return {spelled[answer]: count for answer, count in counts.most_common()}


def by_votes(answers: Sequence[str]) -> list[str]:
    """The different answers, as `votes` counts and orders them."""
    return list(votes(answers))


def majority(answers: Sequence[str]) -> str:
    """The first of `votes`; "" where there is none."""
    return next(iter(votes(answers)), "")


def _folded(answer: str) -> str:
    return answer.strip().casefold()


def xywh(x: float, y: float, width: float, height: float) -> XYXY:
    """A box given by its corner and size."""
    return x, y, x + width, y + height
