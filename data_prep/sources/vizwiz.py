"""Read VizWiz-VQA-Grounding, `<split>_grounding.json`: questions of blind people, with a polygon around the answer.

    {"<file>.jpg": {"question", "most_common_answer", "answers": [...], "width", "height",
                    "answer_grounding": [{"x", "y"}, ...]}, ...}

A polygon of fewer than three points encloses nothing and is rejected. The test split has neither answers nor polygons.
"""

from dataclasses import dataclass, field

from pydantic import BaseModel, TypeAdapter

from data_prep.common.errors import RecordError
from data_prep.files.streams import json_mapping
from data_prep.schema.question import Question

from .base import Pixels, Questions, Source, bounds


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

    licence = "CC BY 4.0"
    schema = TypeAdapter(tuple[str, Grounding])
    read = json_mapping

    def questions(self, record: tuple[str, Grounding]) -> Questions:
        image, grounding = record
        boxes, polygon = [], grounding.answer_grounding
        if polygon is not None:
            if len(polygon) < 3:
                message = f"{image}: the polygon has {len(polygon)} points"
                raise RecordError("polygon", message, image, grounding.question)
            boxes = [bounds([point.x for point in polygon], [point.y for point in polygon])]
        yield Question(
            image=image,
            text=grounding.question,
            answer=grounding.most_common_answer,
            size=(grounding.width, grounding.height),
            boxes=boxes,
        )
