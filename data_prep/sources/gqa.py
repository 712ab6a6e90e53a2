"""Read GQA: `<split>_balanced_questions.json` or the ten `train_all_questions_*.json`, with `<split>_sceneGraphs.json`.

    {qid: {"imageId", "question", "answer", "types": {"structural", "semantic", "detailed"},
           "annotations": {"question": {word: ids}, "answer": {...}, "fullAnswer": {...}},
           "semantic": [{"operation", "argument": "apple (547352)", "dependencies"}, ...], ...}}
    {imageId: {"width", "height", "objects": {id: {"name", "x", "y", "w", "h", ...}}}}

Ids in annotations are joined by commas; `(-)` in an argument is an object that the image does not have. The test splits
have neither answers nor graphs.
"""

import re
from dataclasses import dataclass, field

from pydantic import BaseModel, Field, TypeAdapter

from data_prep.common.fill import key
from data_prep.files.streams import json_mapping
from data_prep.schema.question import Question

from .base import Corner, Id, Items, Questions, Sized, Source

_IDS = re.compile(r"\(([\d, ]+)\)")


class Types(BaseModel):
    structural: str | None = None
    semantic: str | None = None


class Annotations(BaseModel):
    question: dict[str, str] = {}
    answer: dict[str, str] = {}
    full_answer: dict[str, str] = Field(default={}, alias="fullAnswer")


class Step(BaseModel):
    argument: str = ""


class Record(BaseModel):
    image_id: Id = Field(alias="imageId")
    question: str
    answer: str = ""
    types: Types = Types()
    annotations: Annotations = Annotations()
    semantic: list[Step] = []


class Graph(Sized):
    objects: dict[str, Corner]


@dataclass(frozen=True)
class Gqa(Source):
    """Read GQA's questions, with the objects of its scene graphs."""

    annotations: str = field(metadata={"help": "<split>_<balanced|all>_questions.json; a glob for several."})
    scene_graphs: str | None = key(None, "<split>_sceneGraphs.json; the test splits have none.")
    folder: str = key("images", "Folder of the images below image_root.")

    licence = "CC BY 4.0"
    schema = TypeAdapter(tuple[str, Record])
    file_keys = ("annotations", "scene_graphs")
    read = json_mapping

    def lookups(self) -> dict[str, Items]:
        return {} if self.scene_graphs is None else {"graphs": json_mapping(self.scene_graphs)}

    def questions(self, record: tuple[str, Record]) -> Questions:
        _, values = record
        name = f"scene graph of image {values.image_id}"
        graph: Graph | None = self.entry("graphs", values.image_id, Graph, name)
        about_scene = any(step.argument.partition("(")[0].strip() == "scene" for step in values.semantic)
        ids = [] if values.types.semantic == "global" or about_scene else object_ids(values)
        objects = [graph.objects[key] for key in ids if key in graph.objects] if graph else []
        yield Question(
            image=f"{self.folder}/{values.image_id}.jpg",
            text=values.question,
            answer=values.answer,
            kind=values.types.structural,
            size=graph.size if graph else None,
            boxes=[item.box() for item in objects],
            whole_image=bool(values.answer) and not ids,  # a test split has neither
            flags=["missing_object"] if self.tables and len(objects) < len(ids) else [],
        )


def object_ids(record: Record) -> list[str]:
    """Return the ids of the objects that question, answer and full answer mention, each once."""
    notes = record.annotations
    lists = [*notes.question.values(), *notes.answer.values(), *notes.full_answer.values()]
    for step in record.semantic:
        lists += _IDS.findall(step.argument)
    ids = (key.strip() for text in lists for key in text.split(","))
    return list(dict.fromkeys(key for key in ids if key))
