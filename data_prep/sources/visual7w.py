"""Read Visual7W, `dataset_v7w_telling.json` and `dataset_v7w_pointing.json`.

    {"images": [{image_id, filename, split, qa_pairs: [{qa_id, question, answer, multiple_choices, type}]}],
     "boxes": [{box_id, name, x, y, width, height}]}

The answer to a pointing question (`which`) is the number of a box: its region, without words to train on. Telling
questions are answered in words and have no box.
"""

from dataclasses import dataclass, field
from functools import partial

from pydantic import BaseModel, TypeAdapter

from data_prep.common.errors import RecordError
from data_prep.common.fill import key
from data_prep.files.streams import json_list
from data_prep.schema.question import Question

from .base import XYXY, Corner, Items, Questions, Source, keyed, merged


class QA(BaseModel):
    question: str
    answer: int | str
    type: str | None = None


class ImageRecord(BaseModel):
    filename: str
    split: str | None = None
    qa_pairs: list[QA]


@dataclass(frozen=True)
class Visual7W(Source):
    """Read Visual7W, telling or pointing."""

    annotations: str = field(metadata={"help": "dataset_v7w_telling.json or dataset_v7w_pointing.json."})
    split: str | None = key("train", "Split of the images: train, val or test; null: all.")

    schema = TypeAdapter(ImageRecord)
    read = partial(json_list, prefix="images.item")

    def lookups(self) -> dict[str, Items]:
        return {"boxes": keyed(json_list(self.annotations, "boxes.item"), "box_id")}

    def questions(self, record: ImageRecord) -> Questions:
        """Merge questions of the same text: "Which man?" may refer to several."""
        yield from merged(self._questions(record))

    def _questions(self, record: ImageRecord) -> Questions:
        for qa in record.qa_pairs if self.split in (None, record.split) else []:
            question = Question(record.filename, qa.question, kind=qa.type)
            if isinstance(qa.answer, str):
                question.answer = qa.answer
                yield question
                continue
            try:
                question.boxes = [self._box(qa.answer)]
            except RecordError as error:
                yield RecordError(error.reason, error.message, record.filename, qa.question)
                continue
            yield question

    def _box(self, box_id: int) -> XYXY:
        corner: Corner | None = self.entry("boxes", str(box_id), Corner, f"box {box_id}")
        if corner is None:
            raise RecordError("missing_box", f"box {box_id}, the answer, is not in boxes")
        return corner.box()
