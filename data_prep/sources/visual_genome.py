"""Read Visual Genome: questions (`question_answers.json`) and phrases (`region_descriptions.json`), with boxes.

    image_data.json             [{image_id, url, width, height}]    the url names the folder: VG_100K or VG_100K_2
    question_answers.json       [{id, qas: [{qa_id, image_id, question, answer, q_objects, a_objects}]}]
    qa_to_region_mapping.json   {qa_id: region_id}
    region_descriptions.json    [{id, regions: [{region_id, image_id, phrase, x, y, width, height}]}]
    objects.json                [{image_id, objects: [{object_id, x, y, w, h, names}]}]

Boxes are pixels, corner and size, called width and height in one file and w and h in the other; some are negative.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, TypeAdapter

from data_prep.common.errors import RecordError
from data_prep.common.fill import key
from data_prep.files.streams import json_list, json_mapping
from data_prep.schema.question import Question

from .base import XYXY, Corner, Id, Items, Questions, Sized, Source, keyed, merged


class ImageData(Sized):
    url: str


class Region(Corner):
    phrase: str


class Regions(BaseModel):
    id: Id
    regions: list[Region]


class Named(BaseModel):
    object_id: Id


class QA(BaseModel):
    qa_id: Id
    question: str
    answer: str
    q_objects: Annotated[list[Named], BeforeValidator(lambda value: [] if value is None else value)] = []
    a_objects: Annotated[list[Named], BeforeValidator(lambda value: [] if value is None else value)] = []


class QAs(BaseModel):
    id: Id
    qas: list[QA]


@dataclass(frozen=True)
class _VisualGenome(Source):
    """Read sizes and folders of the images, which both readers need."""

    annotations: str = field(metadata={"help": "question_answers.json, or region_descriptions.json for the phrases."})
    image_data: str = field(metadata={"help": "image_data.json."})

    licence = "CC BY 4.0"

    def lookups(self) -> dict[str, Items]:
        return {"images": keyed(json_list(self.image_data), "image_id")}

    def image(self, image_id: str) -> tuple[str, tuple[int, int]]:
        """Return the path of an image and its size."""
        image: ImageData | None = self.entry("images", image_id, ImageData, f"{self.image_data}: image {image_id}")
        if image is None:
            raise RecordError("no_image_data", f"image {image_id} is not in {self.image_data}")
        return "/".join(image.url.split("/")[-2:]), image.size


@dataclass(frozen=True)
class VisualGenome(_VisualGenome):
    """Read Visual Genome's questions; the region is the mapped one, else the objects of question and answer."""

    qa_to_region: str | None = key(None, "qa_to_region_mapping.json.")
    regions: str | None = key(None, "region_descriptions.json.")
    objects: str | None = key(None, "objects.json.")

    schema = TypeAdapter(QAs)
    file_keys = ("annotations", "image_data", "qa_to_region", "regions", "objects")

    def lookups(self) -> dict[str, Items]:
        tables = super().lookups()
        if self.qa_to_region:
            tables["mapping"] = json_mapping(self.qa_to_region)
        if self.regions:
            tables["regions"] = keyed(_members(self.regions, "regions"), "region_id")
        if self.objects:
            tables["objects"] = keyed(_members(self.objects, "objects"), "object_id")
        return tables

    def questions(self, record: QAs) -> Questions:
        """Merge questions of the same text: "What color is the shirt?" may refer to two shirts."""
        yield from merged(self._questions(record))

    def _questions(self, record: QAs) -> Questions:
        image, size = self.image(record.id)
        for qa in record.qas:
            flags: list[str] = []
            try:
                boxes = self._boxes(qa, flags)
            except RecordError as error:
                yield RecordError(error.reason, error.message, image, qa.question)
                continue
            yield Question(image, qa.question, qa.answer, size=size, boxes=boxes, flags=flags)

    def _boxes(self, qa: QA, flags: list[str]) -> list[XYXY]:
        region_id = self.entry("mapping", qa.qa_id, Id, f"{self.qa_to_region}: {qa.qa_id}")
        if region_id is not None:
            region = self.entry("regions", region_id, Corner, f"region {region_id}")
            if region is not None:
                return [region.box()]
        boxes = []
        for named in [*qa.q_objects, *qa.a_objects]:
            corner = self.entry("objects", named.object_id, Corner, f"object {named.object_id}")
            if corner is not None:
                boxes.append(corner.box())
            elif "objects" in self.tables:
                flags.append("missing_object")
        return boxes


@dataclass(frozen=True)
class VisualGenomeRegions(_VisualGenome):
    """Read Visual Genome's phrases, each with the box it describes; without answers, for a localizer."""

    schema = TypeAdapter(Regions)
    file_keys = ("annotations", "image_data")

    def questions(self, record: Regions) -> Questions:
        image, size = self.image(record.id)
        yield from merged(Question(image, region.phrase, size=size, boxes=[region.box()]) for region in record.regions)


def _members(path: str, key: str) -> Iterator[Any]:
    """Yield the members of the list `key` of every record."""
    for record in json_list(path):
        members = record.get(key) if isinstance(record, dict) else None
        yield from members if isinstance(members, list) else []
