"""Read RefCOCO, RefCOCO+ and RefCOCOg: expressions that each refer to one object of a COCO image.

    <folder>/refs(unc|google|umd).p   pickle, a list of {ref_id, ann_id, file_name, image_id, split,
                                      sentences: [{raw, sent}]}; read as plain data (data_prep.files.plain_pickle)
             instances.json           COCO: images [{id, file_name, width, height}], annotations [{id, bbox}]; corner
                                      and size in pixels

`file_name` of a reference contains the annotation's number and names no file: COCO's own name is used. There are no
answers: the expressions are for a localizer. An expression for two objects of an image occurs in two records: that of
the first object is used, and the other is rejected as `duplicate`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, TypeAdapter

from data_prep.common.errors import ConfigError, DataError, RecordError
from data_prep.files.lookup import Index
from data_prep.files.plain_pickle import load_plain
from data_prep.files.streams import Stream, json_list
from data_prep.schema.question import Question

from .base import Pixels, Source, below, keyed, look_up, xywh


class Sentence(BaseModel):
    sent: str


class Ref(BaseModel):
    ann_id: int
    image_id: int
    split: str
    sentences: list[Sentence]


class ImageRecord(BaseModel):
    file_name: str
    width: Pixels
    height: Pixels


_IMAGE, _BBOX = TypeAdapter(ImageRecord), TypeAdapter(tuple[float, float, float, float])


@dataclass(frozen=True)
class RefCoco(Source):
    """Read RefCOCO, RefCOCO+ or RefCOCOg."""

    folder: str = field(metadata={"help": "Folder of one of the sets, with its refs(<split_by>).p and instances.json."})
    split_by: str = field(
        default="unc",
        metadata={"help": "Author of the splits: refs(<split_by>).p.", "choices": ("unc", "google", "umd")},
    )
    split: str | None = field(default="train", metadata={"help": "train, val, test, testA or testB; null: all."})
    image_folder: str = field(default="", metadata={"help": "Folder of COCO's images below image_root: train2014."})
    images: Index = field(init=False, repr=False, compare=False)
    boxes: Index = field(init=False, repr=False, compare=False)

    schema: ClassVar[TypeAdapter[Any]] = TypeAdapter(Ref)
    file_keys: ClassVar[tuple[str, ...]] = ("folder",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for path in self.files():
            if not path.is_file():
                raise ConfigError(f"folder: no such file: {path}")

    def files(self) -> list[Path]:
        return [Path(self.folder) / f"refs({self.split_by}).p", Path(self.folder) / "instances.json"]

    def prepare(self, folder: Path, image_root: Path | None) -> Self:
        instances = self.files()[1]
        images = keyed(json_list(instances, "images.item"), "id")
        boxes = ((key, item.get("bbox")) for key, item in keyed(json_list(instances, "annotations.item"), "id"))
        return self.having(
            images=Index.build(folder / "images.sqlite", images), boxes=Index.build(folder / "boxes.sqlite", boxes)
        )

    def records(self) -> Stream:
        refs = load_plain(self.files()[0])
        if not isinstance(refs, list):
            raise DataError(f"{self.files()[0]}: expected a list of references, got {type(refs).__name__}")
        read = 0

        def count() -> Iterator[Any]:
            nonlocal read
            for ref in refs:
                read += 1
                yield ref

        return Stream(count(), len(refs), lambda: read)

    def questions(self, record: Ref) -> Iterator[Question | RecordError]:
        if self.split not in (None, record.split):
            return
        item, bbox = self.images.get(str(record.image_id)), self.boxes.get(str(record.ann_id))
        if item is None or bbox is None:
            what = f"image {record.image_id}" if item is None else f"annotation {record.ann_id}"
            raise RecordError("missing_instance", f"{what} is not in instances.json")
        image = look_up(_IMAGE, item, f"instances.json: image {record.image_id}")
        box = xywh(*look_up(_BBOX, bbox, f"instances.json: annotation {record.ann_id}"))
        name = below(self.image_folder, image.file_name)
        for sentence in dict.fromkeys(sentence.sent for sentence in record.sentences):
            yield Question(name, sentence, size=(image.width, image.height), boxes=[box])
