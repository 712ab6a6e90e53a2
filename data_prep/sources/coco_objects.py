"""Read questions about COCO images, with the objects that COCO annotates: the shared part of such readers.

COCO's `instances_<split>.json` mixes the annotations of all images, so each annotation becomes an item of the look-up
table: those of image 42 are `42/0`, `42/1`, ..., and `42` is its size.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from data_prep.common.errors import ConfigError
from data_prep.common.fill import key
from data_prep.files.streams import json_list
from data_prep.schema.question import LabelledBox, Question

from .base import XYXY, Items, Pixels, Sized, Source, xywh


class ImageRecord(Sized):
    id: int


class Category(BaseModel):
    id: int
    name: str


class Instance(BaseModel):
    image_id: int
    category_id: int
    bbox: XYXY  # x, y, width, height in pixels


class Named(NamedTuple):
    name: str
    box: XYXY


Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class CocoQuestions(Source):
    """Read questions about images that are named by their number in COCO."""

    image_name: str = key(
        "{image_id:012}.jpg", "Path of an image below image_root, by its number: COCO_train2014_{image_id:012}.jpg."
    )
    instances: str | None = key(
        None, "COCO's instances_<split>.json of the same images; without it there are no regions."
    )

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

    def lookups(self) -> dict[str, Items]:
        return {} if self.instances is None else {"coco": _items(self.instances)}

    def question(self, image_id: int, text: str, answer: str, kind: str | None = None) -> Question:
        """Make a question about an image, with the image's size and objects, crowds included, as COCO states them."""
        name = f"instances: image {image_id}"
        size = self.entry("coco", str(image_id), tuple[Pixels, Pixels], name)
        objects: list[LabelledBox] = []
        while item := self.entry("coco", f"{image_id}/{len(objects)}", Named, f"{name}: object {len(objects)}"):
            objects.append(LabelledBox(*item))
        return Question(self.image_of(image_id), text, answer, kind=kind, size=size, objects=objects)


def _items(instances: str) -> Items:
    """Yield the items of the look-up table; an annotation that does not have COCO's form is skipped."""
    for raw in json_list(instances, "images.item"):
        if (image := fitting(ImageRecord, raw)) is not None:
            yield str(image.id), image.size
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
