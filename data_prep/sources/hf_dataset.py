"""Read any data set in the form of `datasets`: a saved folder or parquet files, with columns from the configuration.

An image is a path, {"bytes", "path"} as `datasets` stores it, or a list of either, of which the first counts. Its file
must exist below image_root at that path in any case, because the trainer reads it there. Only `images: trust` opens
none and takes the size from the embedded bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast

from pydantic import TypeAdapter

from data_prep.common.errors import ConfigError, RecordError
from data_prep.common.fill import key
from data_prep.files.images import read_embedded
from data_prep.files.streams import Stream, parquet_rows, saved_dataset
from data_prep.schema.data_source import existing_paths
from data_prep.schema.question import BoxFrame, Question

from .base import Embedded, Questions, Source, look_up, majority, xywh

Cell = str | Embedded | list[str | Embedded]  # one image or several
Numbers = list[float] | list[list[float]] | None  # coordinates of one box or several


@dataclass(frozen=True)
class HfDataset(Source):
    """Read a folder saved by `datasets`, or parquet files, by the columns named here."""

    data: str = field(metadata={"help": "The folder, or parquet by path or glob."})
    image_column: str = key("image", "Column of images: paths, or {bytes, path}.")
    question_column: str = key("question", "Column of questions.")
    answer_column: str | None = key(
        "answer", "Column of answers: a text, or several of which the most frequent counts."
    )
    boxes_column: str | None = key(None, "Column of boxes: four numbers, or a list of such; null: there are none.")
    box_format: str = key("xyxy", "Corners, or corner and size.", choices=("xyxy", "xywh"))
    box_frame: str = key("pixels", "Pixels, or fractions of width and height.", choices=("pixels", "unit"))

    schema = TypeAdapter(dict[str, Any])
    file_keys = ("data",)

    @property
    def columns(self) -> list[str]:
        named = (self.image_column, self.question_column, self.answer_column, self.boxes_column)
        return [column for column in named if column is not None]

    def prepare(self, folder: Path, image_root: Path | None) -> Self:
        """Check on the first row that the columns exist.

        Raises:
            ConfigError: one of them does not.
        """
        for raw in self.records():
            if missing := sorted(set(self.columns) - set(row := raw.load())):
                raise ConfigError(f"{self.data}: no column {missing[0]!r}; of those named here it has {sorted(row)}")
            break
        return self

    def records(self) -> Stream:
        if Path(self.data).is_dir():
            return saved_dataset(self.data)
        return parquet_rows(existing_paths(self.data), self.columns)

    def questions(self, record: Mapping[str, Any]) -> Questions:
        image, size = _image(look_up(Cell, record.get(self.image_column), self.image_column))
        answer = self._value(record, self.answer_column, str | list[str] | None)
        yield Question(
            image=image,
            text=self._value(record, self.question_column, str),
            answer=majority(answer) if isinstance(answer, list) else answer or "",
            size=size,
            frame=cast(BoxFrame, self.box_frame),
            boxes=[self._corners(box) for box in _boxes(self._value(record, self.boxes_column, Numbers))],
        )

    def _value(self, record: Mapping[str, Any], column: str | None, kind: Any) -> Any:
        return None if column is None else look_up(kind, record.get(column), column)

    def _corners(self, box: Sequence[float]) -> Sequence[float]:
        return xywh(*box) if self.box_format == "xywh" and len(box) == 4 else box


def _boxes(value: Sequence[Any] | None) -> Sequence[Sequence[float]]:
    """Return one box, several or none as a list."""
    if not value:
        return []
    return [value] if isinstance(value[0], float) else value


def _image(value: str | Embedded | Sequence[str | Embedded]) -> tuple[str, tuple[int, int] | None]:
    """Return the path of the (first) image, and its size if its bytes are embedded."""
    first = value
    if isinstance(value, list):
        if not value:
            raise RecordError("no_image", "the record has no image")
        first = value[0]
    if isinstance(first, str):
        return first, None
    assert isinstance(first, Embedded)
    if not first.path:
        raise RecordError("no_path", "the image is embedded without a path; the trainer reads images from files")
    if first.data is None:
        return first.path, None
    path, header = read_embedded(first.data, first.path, None)
    return path, (header.width, header.height)
