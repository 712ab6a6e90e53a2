"""Read Toloka's visual question answering of WSDM Cup 2023: questions whose answer is a box, not a text.

CSV with the columns image, width, height, left, top, right, bottom, question. As published, `image` is a URL, but
nothing is fetched: the file of that name is read below image_root.
"""

from dataclasses import dataclass, field

from pydantic import BaseModel, TypeAdapter

from data_prep.files.streams import csv_rows
from data_prep.schema.question import Question

from .base import Pixels, Questions, Source


class Record(BaseModel):
    image: str
    width: Pixels
    height: Pixels
    left: float
    top: float
    right: float
    bottom: float
    question: str


@dataclass(frozen=True)
class Toloka(Source):
    """Read questions that a box answers; they are for a localizer."""

    annotations: str = field(metadata={"help": "train.csv, test_public.csv or test_private.csv."})

    licence = "CC BY 4.0"
    schema = TypeAdapter(Record)
    read = csv_rows

    def questions(self, record: Record) -> Questions:
        yield Question(
            image=_file_name(record.image),
            text=record.question,
            size=(record.width, record.height),
            boxes=[(record.left, record.top, record.right, record.bottom)],
        )


def _file_name(image: str) -> str:
    """Return the last part of a URL, without its query; a path stays as it is."""
    if "://" not in image:
        return image
    return image.partition("?")[0].partition("#")[0].rpartition("/")[2]
