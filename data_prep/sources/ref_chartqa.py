"""Read RefChartQA, parquet: ChartQA's questions with the boxes of the elements that give the answer.

Columns: id, image {bytes, path} or imgname, query, label, and a column of boxes, whose name and form are read from the
file: a list of lists of four numbers, or of {x, y, w, h}. Pixels. The trainer reads files: `python -m data_prep.unpack`
puts the images below the image root.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BeforeValidator, TypeAdapter

from data_prep.common.errors import ConfigError, RecordError
from data_prep.common.fill import key
from data_prep.files.images import read_embedded
from data_prep.files.streams import LazyRow, Stream, errors_as, parquet_rows
from data_prep.schema.data_source import existing_paths
from data_prep.schema.question import Question

from .base import XYXY, Corner, Id, ImageCells, Questions, Source, xywh


class Record(ImageCells):
    query: str
    label: Id | float
    type: str | None = None
    boxes: Annotated[list[Corner | XYXY], BeforeValidator(lambda value: [] if value is None else value)]


@dataclass(frozen=True)
class RefChartQA(Source):
    """Read RefChartQA's questions about charts."""

    annotations: str = field(metadata={"help": "The parquet files, by path or glob."})
    boxes: str | None = key(None, "Column of the boxes; null: the only column that could hold boxes.")
    box_form: str = key("xywh", "Form of boxes that are four numbers.", choices=("xywh", "xyxy"))

    schema = TypeAdapter(Record)

    def prepare(self, folder: Path, image_root: Path | None) -> Self:
        return replace(self, boxes=box_column(existing_paths(self.annotations)[0], self.boxes))

    def records(self) -> Stream:
        return parquet_rows(existing_paths(self.annotations), block=1)

    def parse(self, raw: Any) -> Any:
        row = raw.load() if isinstance(raw, LazyRow) else raw
        return super().parse({**row, "boxes": row.get(self.boxes)} if isinstance(row, dict) else row)

    def questions(self, record: Record) -> Questions:
        image = record.image_of()
        question = Question(
            image=image.path or "",
            text=record.query,
            answer=str(record.label),
            kind=record.type,
            boxes=[self._corners(box) for box in record.boxes],
        )
        if image.data:
            question.image, header = read_embedded(image.data, image.path, record.id)
            question.size, question.flags = (header.width, header.height), header.flags
        if not question.image:
            raise RecordError("no_image", "neither an image nor its name", question=record.query)
        yield question

    def _corners(self, box: Corner | XYXY) -> XYXY:
        if isinstance(box, Corner):
            return box.box()
        return xywh(*box) if self.box_form == "xywh" else box


def box_column(path: Path, named: str | None) -> str:
    """Return the column of a parquet file that holds boxes: `named`, or the only one of such a type.

    Raises:
        ConfigError: the file has no such column, or several.
    """
    with errors_as(f"{path}: not parquet"):
        schema = pq.read_schema(path)
    columns = [column.name for column in schema if _holds_boxes(column.type)]
    if named is not None and named not in schema.names:
        raise ConfigError(f"boxes: {path} has no column {named!r}, but {schema.names}")
    if named is None and len(columns) != 1:
        raise ConfigError(f"boxes: name the column of {path} with boxes: {columns or schema.names}")
    return named or columns[0]


def _holds_boxes(kind: pa.DataType) -> bool:
    """Check for a list of lists of numbers, or of {x, y, w, h}."""
    if not _is_list(kind):
        return False
    item = kind.value_type
    if pa.types.is_struct(item):
        return {"x", "y", "w", "h"} <= {item.field(index).name for index in range(item.num_fields)}
    return _is_list(item) and (pa.types.is_floating(item.value_type) or pa.types.is_integer(item.value_type))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
