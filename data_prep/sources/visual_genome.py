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
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, TypeAdapter

from data_prep.common.errors import RecordError
from data_prep.files.lookup import Index
from data_prep.files.streams import Stream, json_list, json_mapping
from data_prep.schema.question import Question

from .base import XYXY, Corner, Id, Pixels, Source, keyed, look_up, merged


class ImageData(BaseModel):
    url: str
    width: Pixels
    height: Pixels


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


_IMAGE, _CORNER, _ID = TypeAdapter(ImageData), TypeAdapter(Corner), TypeAdapter(Id)


@dataclass(frozen=True)
class _VisualGenome(Source):
    """Read sizes and folders of the images, which both readers need."""

    annotations: str = field(metadata={"help": "question_answers.json, or region_descriptions.json for the phrases."})
    image_data: str = field(metadata={"help": "image_data.json."})
    images: Index = field(init=False, repr=False, compare=False)

    licence: ClassVar[str] = "CC BY 4.0"

    def prepare(self, folder: Path, image_root: Path | None) -> Self:
        items = keyed(json_list(self.image_data), "image_id")
        return self.having(images=Index.build(folder / "images.sqlite", items))

    def records(self) -> Stream:
        return json_list(self.annotations)

    def image(self, image_id: str) -> tuple[str, tuple[int, int]]:
        """Return the path of an image and its size."""
        item = self.images.get(image_id)
        if item is None:
            raise RecordError("no_image_data", f"image {image_id} is not in {self.image_data}")
        image = look_up(_IMAGE, item, f"{self.image_data}: image {image_id}")
        return "/".join(image.url.split("/")[-2:]), (image.width, image.height)


@dataclass(frozen=True)
class VisualGenome(_VisualGenome):
    """Read Visual Genome's questions; the region is the mapped one, else the objects of question and answer."""

    qa_to_region: str | None = field(default=None, metadata={"help": "qa_to_region_mapping.json."})
    regions: str | None = field(default=None, metadata={"help": "region_descriptions.json."})
    objects: str | None = field(default=None, metadata={"help": "objects.json."})
    tables: dict[str, Index] = field(init=False, default_factory=dict, repr=False, compare=False)

    schema: ClassVar[TypeAdapter[Any]] = TypeAdapter(QAs)
    file_keys: ClassVar[tuple[str, ...]] = ("annotations", "image_data", "qa_to_region", "regions", "objects")

    def prepare(self, folder: Path, image_root: Path | None) -> Self:
        tables: dict[str, Index] = {}
        if self.qa_to_region:
            tables["mapping"] = Index.build(folder / "mapping.sqlite", json_mapping(self.qa_to_region))
        if self.regions:
            items = keyed(_members(self.regions, "regions"), "region_id")
            tables["region"] = Index.build(folder / "regions.sqlite", items)
        if self.objects:
            items = keyed(_members(self.objects, "objects"), "object_id")
            tables["object"] = Index.build(folder / "objects.sqlite", items)
        return super().prepare(folder, image_root).having(tables=tables)

    def questions(self, record: QAs) -> Iterator[Question | RecordError]:
        """Merge questions of the same text: "What color is the shirt?" may refer to two shirts."""
        yield from merged(self._questions(record))

    def _questions(self, record: QAs) -> Iterator[Question | RecordError]:
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
        region_id = self._item("mapping", qa.qa_id)
        if region_id is not None:
            region = self._box("region", look_up(_ID, region_id, f"{self.qa_to_region}: {qa.qa_id}"))
            if region is not None:
                return [region]
        boxes = []
        for named in [*qa.q_objects, *qa.a_objects]:
            box = self._box("object", named.object_id)
            if box is not None:
                boxes.append(box)
            elif "object" in self.tables:
                flags.append("missing_object")
        return boxes

    def _item(self, table: str, key: str) -> Any | None:
        return self.tables[table].get(key) if table in self.tables else None

    def _box(self, table: str, key: str) -> XYXY | None:
        item = self._item(table, key)
        return None if item is None else look_up(_CORNER, item, f"{table} {key}").box()


@dataclass(frozen=True)
class VisualGenomeRegions(_VisualGenome):
    """Read Visual Genome's phrases, each with the box it describes; without answers, for a localizer."""

    schema: ClassVar[TypeAdapter[Any]] = TypeAdapter(Regions)
    file_keys: ClassVar[tuple[str, ...]] = ("annotations", "image_data")

    def questions(self, record: Regions) -> Iterator[Question | RecordError]:
        image, size = self.image(record.id)
        yield from merged(Question(image, region.phrase, size=size, boxes=[region.box()]) for region in record.regions)


def _members(path: str, key: str) -> Iterator[Any]:
    """Yield the members of the list `key` of every record."""
    for record in json_list(path):
        members = record.get(key) if isinstance(record, dict) else None
        yield from members if isinstance(members, list) else []
