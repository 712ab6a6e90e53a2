"""Read InfographicVQA: `infographicsVQA_<split>_v1.0.json`, with a folder of Amazon Textract's text of its images.

    {"data": [{"questionId", "question", "image_local_name", "ocr_output_file", "answers", "answer_type"?, ...}, ...]}
    <file>.json: {"PAGE": [...], "LINE": [...], "WORD": [{"BlockType": "WORD", "Text", "Geometry": {"BoundingBox":
                 {"Left", "Top", "Width", "Height"}}, ...}, ...]}, or Textract's own {"Blocks": [...]}; fractions

Four of ten answers do not occur in the text: they are counted, compared or combined. The test split has no answers.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from pydantic import AliasChoices, BaseModel, Field, TypeAdapter

from data_prep.common.fill import key
from data_prep.schema.question import LabelledBox

from .base import xywh
from .docvqa import CACHED_PAGES, DocVqa, read_ocr
from .rosetta import NO_OCR, ImageText


class Record(BaseModel):
    question: str
    image: str = Field(alias="image_local_name")
    ocr_file: str = Field(alias="ocr_output_file")
    answers: list[str] = []
    kinds: list[str] = Field(default=[], alias="answer_type")


class BoundingBox(BaseModel):
    left: float = Field(alias="Left")
    top: float = Field(alias="Top")
    width: float = Field(alias="Width")
    height: float = Field(alias="Height")


class Geometry(BaseModel):
    box: BoundingBox = Field(alias="BoundingBox")


class Block(BaseModel):
    kind: str = Field(alias="BlockType")
    text: str = Field(default="", alias="Text")
    geometry: Geometry = Field(alias="Geometry")


class Textract(BaseModel):
    blocks: list[Block] = Field(validation_alias=AliasChoices("WORD", "Blocks"))


@dataclass(frozen=True)
class InfographicVqa(DocVqa):
    """Read InfographicVQA's questions; the region is the text in which Textract read the answer."""

    folder: str = key("infographicsvqa_images", "Folder of the images below image_root.")

    schema = TypeAdapter(Record)

    def text_of(self, folder: Path, record: Record) -> ImageText:
        return read_textract(folder / PurePosixPath(record.ocr_file).name)


@lru_cache(maxsize=CACHED_PAGES)
def read_textract(path: Path) -> ImageText:
    """Read the text of an image; RecordError if the file has another form."""
    textract = read_ocr(Textract, path)
    if textract is None:
        return NO_OCR
    boxes = [(block.text, block.geometry.box) for block in textract.blocks if block.kind == "WORD"]
    return ImageText([LabelledBox(text, xywh(box.left, box.top, box.width, box.height)) for text, box in boxes])
