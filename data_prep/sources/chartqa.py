"""Read ChartQA: `<split>_human.json` and `<split>_augmented.json`, lists of {imgname, query, label}.

    annotations/<name>.json   the elements of a chart, nested: {"text", "bbox": {x, y, w, h}} for titles and labels,
                              {"values": [...], "bboxes": [...]} for an axis, {"name", "y": [...], "bboxes": [...]} for
                              the bars, points or slices of a series; pixels

All elements are matched with the answer and with the words of the question. A series, by its name, covers all of its
bars, points or slices.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydantic_core
from pydantic import BaseModel, TypeAdapter

from crop_model.regions import union_box
from data_prep.common.errors import RecordError
from data_prep.common.fill import key
from data_prep.files.images import existing_image
from data_prep.files.streams import errors_as
from data_prep.schema.question import LabelledBox, Question

from .base import XYXY, Id, Questions, Source, below, xywh


class Record(BaseModel):
    imgname: str
    query: str
    label: Id | float


@dataclass(frozen=True)
class ChartQA(Source):
    """Read ChartQA's questions about charts."""

    annotations: str = field(metadata={"help": "<split>_human.json or <split>_augmented.json."})
    elements: str | None = key(None, "Folder annotations/ of the same split; without it there are no regions.")
    folder: str = key("", "Folder of the images below image_root, such as train/png.")

    licence = "GPL-3.0"
    schema = TypeAdapter(Record)
    file_keys = ("annotations", "elements")

    def questions(self, record: Record) -> Questions:
        elements = list(_elements(self._chart(record.imgname)))
        yield Question(
            image=below(self.folder, record.imgname),
            text=record.query,
            answer=str(record.label),
            answers=[str(record.label)],
            words=elements,
            objects=elements,
        )

    def _chart(self, imgname: str) -> Any:
        if self.elements is None:
            return None
        try:
            path = existing_image(Path(self.elements).absolute(), f"{imgname.rpartition('.')[0]}.json")
        except RecordError as error:
            if error.reason == "no_image":  # not every chart is annotated
                return None
            raise
        with errors_as(f"{path}: not JSON"):
            return pydantic_core.from_json(path.read_bytes())


def _elements(chart: Any) -> Iterator[LabelledBox]:
    """Yield the texts, series and values of a chart that have a box, in the order of the file."""
    pending = [chart]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += reversed(node)
        if not isinstance(node, dict):
            continue
        pending += reversed(node.values())
        if isinstance(node.get("bbox"), dict):
            yield from _labelled([node.get("text")], [node["bbox"]])
        boxes = node.get("bboxes")
        if not isinstance(boxes, list):
            continue
        if isinstance(node.get("name"), str) and (usable := [box for box in map(_corners, boxes) if box is not None]):
            yield LabelledBox(node["name"], union_box(usable))
        for texts in ("values", "y"):
            if isinstance(node.get(texts), list):
                yield from _labelled(node[texts], boxes)


def _labelled(texts: list[Any], boxes: list[Any]) -> Iterator[LabelledBox]:
    for text, value in zip(texts, boxes, strict=False):
        if isinstance(text, str | int | float) and (box := _corners(value)) is not None:
            yield LabelledBox(text if isinstance(text, str) else f"{text:.10g}", box)


def _corners(value: Any) -> XYXY | None:
    match value:
        case {
            "x": int() | float() as x,
            "y": int() | float() as y,
            "w": int() | float() as w,
            "h": int() | float() as h,
        }:
            return xywh(x, y, w, h)
    return None
