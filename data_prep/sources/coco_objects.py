"""Questions about COCO images, with the objects that COCO annotated there: what their readers share.

COCO's `instances_<split>.json` lists annotations of all images mixed, so each becomes an item of its own in the look-up
table: image 42's are `42/0`, `42/1`, ..., and `42` is its size.
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
    """Questions about images that are called by their number in COCO."""

    image_name: str = field(
        default="{image_id:012}.jpg",
        metadata={"help": "Path of an image below image_root, by its number: COCO_train2014_{image_id:012}.jpg."},
    )
    instances: str | None = field(
        default=None,
        metadata={"help": "COCO's instances_<split>.json of the same images; without it no region is found."},
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
        """Width and height that COCO states; None where it does not know the image."""
        found = self.objects.get(str(image_id)) if self.objects else None
        return None if found is None else look_up(_SIZE, found, f"instances: image {image_id}")

    def objects_of(self, image_id: int) -> list[LabelledBox]:
        """The annotated objects of an image, crowds included."""
        found: list[LabelledBox] = []
        while self.objects and (value := self.objects.get(f"{image_id}/{len(found)}")) is not None:
            found.append(LabelledBox(*look_up(_NAMED, value, f"instances: image {image_id}: object {len(found)}")))
        return found


def _items(instances: str) -> Iterator[tuple[str, Any]]:
    """The items of the look-up table; an annotation that is not of COCO's form is left out, it has nothing to tell."""
    for raw in json_list(instances, "images.item"):
        if (image := fitting(ImageRecord, raw)) is not None:
            yield str(image.id), (image.width, image.height)
    categories = (fitting(Category, raw) for raw in json_list(instances, "categories.item"))
    names = {category.id: category.name for category in categories if category is not None}
    counts = Counter[int]()
    for raw in json_list(instances, "annotations.item"):
        found = fitting(Instance, raw)
        if found is not None and found.category_id in names:
            key = f"{found.image_id}/{counts[found.image_id]}"
            counts[found.image_id] += 1
            yield key, (names[found.category_id], xywh(*found.bbox))


def fitting(model: type[Model], raw: Any) -> Model | None:
    """An item of a file on its way into a look-up table, as `model` has it; None where it does not fit."""
    try:
        return model.model_validate(raw)
    except ValidationError:
        return None
