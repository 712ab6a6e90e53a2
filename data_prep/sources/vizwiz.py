"""Read VizWiz-VQA-Grounding, `<split>_grounding.json`: questions of blind people, with a polygon around the answer.

    {"<file>.jpg": {"question", "most_common_answer", "answers": [...], "width", "height",
                    "answer_grounding": [{"x", "y"}, ...]}, ...}

A polygon of fewer than three points encloses nothing and is rejected. The test split has neither answers nor polygons.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pydantic import BaseModel, TypeAdapter

from data_prep.common.errors import RecordError
from data_prep.files.streams import Stream, json_mapping
from data_prep.schema.question import Question

from .base import Pixels, Source


class Point(BaseModel):
    x: float
    y: float


class Grounding(BaseModel):
    question: str
    most_common_answer: str = ""
    width: Pixels
    height: Pixels
    answer_grounding: list[Point] | None = None


@dataclass(frozen=True)
class VizWiz(Source):
    """Read VizWiz-VQA-Grounding; the box encloses the answer's polygon."""

    annotations: str = field(metadata={"help": "<split>_grounding.json."})

    licence: ClassVar[str] = "CC BY 4.0"
    schema: ClassVar[TypeAdapter[Any]] = TypeAdapter(tuple[str, Grounding])
    file_keys: ClassVar[tuple[str, ...]] = ("annotations",)

    def records(self) -> Stream:
        return json_mapping(self.annotations)

    def questions(self, record: tuple[str, Grounding]) -> Iterator[Question | RecordError]:
        image, grounding = record
        polygon = grounding.answer_grounding
        if polygon is not None and len(polygon) < 3:
            message = f"{image}: the polygon has {len(polygon)} points"
            raise RecordError("polygon", message, image, grounding.question)
        yield Question(
            image=image,
            text=grounding.question,
            answer=grounding.most_common_answer,
            size=(grounding.width, grounding.height),
            boxes=[] if polygon is None else [_bounds(polygon)],
        )


def _bounds(polygon: list[Point]) -> tuple[float, float, float, float]:
    xs, ys = [point.x for point in polygon], [point.y for point in polygon]
    return min(xs), min(ys), max(xs), max(ys)
