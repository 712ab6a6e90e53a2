"""Read conversations as LLaVA writes them, with boxes in the text: the shared part of such readers."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NotRequired, Self, cast

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from data_prep.common.errors import DataError
from data_prep.common.fill import key
from data_prep.derivation.joins import Joins
from data_prep.derivation.text_boxes import FrameTest, find_boxes
from data_prep.files.images import existing_image, read_header
from data_prep.schema.question import BoxFrame, Question
from data_prep.schema.records import Turn, conversation, image_names

from .base import Questions, Source

FRAME_TEST_QUESTIONS, FRAME_TEST_RECORDS = 2000, 50_000
Utterance = TypedDict("Utterance", {"from": str, "value": str, "type": NotRequired[str | None]})


@dataclass(frozen=True)
class LlavaText(Source):
    """Read a file of conversations, with the regions of the data sets that it was made from."""

    annotations: str = field(metadata={"help": "The conversations."})
    joins: list[str] = key(
        list,
        "List of PREFIX=SIDECAR: a question on an image below PREFIX takes its region from that sidecar, "
        "if its native source has it.",
    )
    frame: str = key(
        "auto",
        "Frame of boxes in the text: fractions of the padded square, or (unit) of the image; auto: as "
        f"measured on the first {FRAME_TEST_QUESTIONS} questions with boxes.",
        choices=("auto", "padded_square", "unit"),
    )
    joined: Joins = field(init=False, repr=False, compare=False)

    schema = TypeAdapter(dict[str, Any])
    trains_itself = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "joined", Joins(self.joins))

    def files(self) -> list[Path]:
        return super().files() + self.joined.files()

    def prepare(self, folder: Path, image_root: Path | None) -> Self:
        ready = replace(self, frame=measured_frame(self, image_root) if self.frame == "auto" else self.frame)
        ready.joined.build(folder)
        return ready

    def boxed_records(self, limit: int) -> Iterator[Any]:
        """Yield raw records for measuring the frame: from the first `limit`, at least those with boxes in the text."""
        return islice(self.records(), limit)

    def questions(self, record: Mapping[str, Any]) -> Questions:
        images = image_names("record", record)
        _, turns = conversation("record", record, len(images))
        for number, turn in enumerate(turns if images else []):
            question = self._question(images[0], number, turn)
            question.other_images = images[1:]
            if not question.boxes:
                question.joined = self.joined.find(images[0], turn.question)
            yield question

    def _question(self, image: str, number: int, turn: Turn) -> Question:
        """Make a question: a box in its text is its subject, a box in its answer is what it asks for."""
        boxes, flags = find_boxes(turn.question), []
        if not boxes and (boxes := find_boxes(turn.answer)):
            flags = ["leak_answer_box"]
        frame = cast(BoxFrame, "padded_square" if self.frame == "auto" else self.frame)
        return Question(image, turn.question, turn.answer, number, turn.kind, frame=frame, boxes=boxes, flags=flags)


def measured_frame(source: LlavaText, image_root: Path | None) -> BoxFrame:
    """Measure the frame of boxes in the text on the first questions that have some; see `text_boxes`."""
    test = FrameTest()
    for boxes, (width, height) in islice(_boxes_with_sizes(source, image_root), FRAME_TEST_QUESTIONS):
        test.add(boxes, width, height)
    return test.frame


def _boxes_with_sizes(source: LlavaText, image_root: Path | None) -> Iterator[tuple[Any, tuple[int, int]]]:
    for raw in source.boxed_records(FRAME_TEST_RECORDS):
        try:
            for question in source.questions(source.parse(raw)):
                if isinstance(question, Question) and question.boxes:
                    size = question.size
                    if size is None:
                        header = read_header(existing_image(image_root, question.image))
                        size = header.width, header.height
                    yield question.boxes, size
        except DataError:  # `annotate` rejects it by name
            continue
