"""Read questions about COCO images, with the objects that COCO annotates: the shared part of such readers.

COCO's `instances_<split>.json` mixes the annotations of all images, so each annotation becomes an item of the look-up
table: those of image 42 are `42/0`, `42/1`, ..., and `42` is its size.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from data_prep.common.errors import ConfigError
from data_prep.files.lookup import Index
from data_prep.files.streams import json_list
from data_prep.schema.question import LabelledBox

from .base import XYXY, Pixels, Source, look_up, xywh


class ImageRecord(BaseModel):
    id: int
    width: Pixels
    height: Pixels


class Category(BaseModel):
    id: int
    name: str


class Instance(BaseModel):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]  # x, y, width, height in pixels


class Named(NamedTuple):
    name: str
    box: XYXY


Model = TypeVar("Model", bound=BaseModel)
_SIZE, _NAMED = TypeAdapter(tuple[Pixels, Pixels]), TypeAdapter(Named)


@dataclass(frozen=True)
class CocoQuestions(Source):
    """Read questions about images that are named by their number in COCO."""

    image_name: str = field(
        default="{image_id:012}.jpg",
        metadata={"help": "Path of an image below image_root, by its number: COCO_train2014_{image_id:012}.jpg."},
    )
    instances: str | None = field(
        default=None,
        metadata={"help": "COCO's instances_<split>.json of the same images; without it there are no regions."},
    )
    objects: Index | None = field(init=False, default=None, repr=False, compare=False)

    file_keys: ClassVar[tuple[str, ...]] = ("instances",)

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            different = self.image_of(1) != self.image_of(2)
        except (LookupError, ValueError, AttributeError, TypeError):
            different = False
        if not different:
            raise ConfigError(f"image_name: expected {{image_id}} or {{image_id:012}} in it, got {self.image_name!r}")

    def image_of(self, image_id: int) -> str:
        return self.image_name.format(image_id=image_id)

    def prepare(self, folder: Path, image_root: Path | None) -> Self:
        if self.instances is None:
            return self
        return self.having(objects=Index.build(folder / "coco.sqlite", _items(self.instances)))

    def size_of(self, image_id: int) -> tuple[int, int] | None:
        """Return width and height as COCO states them; None if it does not list the image."""
        size = self.objects.get(str(image_id)) if self.objects else None
        return None if size is None else look_up(_SIZE, size, f"instances: image {image_id}")

    def objects_of(self, image_id: int) -> list[LabelledBox]:
        """Return the annotated objects of an image, crowds included."""
        objects: list[LabelledBox] = []
        while self.objects and (value := self.objects.get(f"{image_id}/{len(objects)}")) is not None:
            objects.append(LabelledBox(*look_up(_NAMED, value, f"instances: image {image_id}: object {len(objects)}")))
        return objects


def _items(instances: str) -> Iterator[tuple[str, Any]]:
    """Yield the items of the look-up table; an annotation that does not have COCO's form is skipped."""
    for raw in json_list(instances, "images.item"):
        if (image := fitting(ImageRecord, raw)) is not None:
            yield str(image.id), (image.width, image.height)
    categories = (fitting(Category, raw) for raw in json_list(instances, "categories.item"))
    names = {category.id: category.name for category in categories if category is not None}
    counts = Counter[int]()
    for raw in json_list(instances, "annotations.item"):
        instance = fitting(Instance, raw)
        if instance is not None and instance.category_id in names:
            key = f"{instance.image_id}/{counts[instance.image_id]}"
            counts[instance.image_id] += 1
            yield key, (names[instance.category_id], xywh(*instance.bbox))


def fitting(model: type[Model], raw: Any) -> Model | None:
    """Parse an item for a look-up table by `model`; None if it does not fit."""
    try:
        return model.model_validate(raw)
    except ValidationError:
        return None
