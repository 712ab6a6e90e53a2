"""Read RefCOCO, RefCOCO+ and RefCOCOg: expressions that each refer to one object of a COCO image.

    <folder>/refs(unc|google|umd).p   pickle, a list of {ref_id, ann_id, file_name, image_id, split,
                                      sentences: [{raw, sent}]}; read as plain data (data_prep.files.plain_pickle)
             instances.json           COCO: images [{id, file_name, width, height}], annotations [{id, bbox}]; corner
                                      and size in pixels

`file_name` of a reference contains the annotation's number and names no file: COCO's own name is used. There are no
answers: the expressions are for a localizer. An expression for two objects of an image occurs in two records: that of
the first object is used, and the other is rejected as `duplicate`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from data_prep.common.errors import ConfigError, DataError, RecordError
from data_prep.common.fill import key
from data_prep.files.plain_pickle import load_plain
from data_prep.files.streams import Stream, json_list
from data_prep.schema.question import Question

from .base import XYXY, Items, Questions, Sized, Source, below, keyed, listed, xywh


class Sentence(BaseModel):
    sent: str


class Ref(BaseModel):
    ann_id: int
    image_id: int
    split: str
    sentences: list[Sentence]


class ImageRecord(Sized):
    file_name: str


@dataclass(frozen=True)
class RefCoco(Source):
    """Read RefCOCO, RefCOCO+ or RefCOCOg."""

    folder: str = field(metadata={"help": "Folder of one of the sets, with its refs(<split_by>).p and instances.json."})
    split_by: str = key("unc", "Author of the splits: refs(<split_by>).p.", choices=("unc", "google", "umd"))
    split: str | None = key("train", "train, val, test, testA or testB; null: all.")
    image_folder: str = key("", "Folder of COCO's images below image_root: train2014.")

    schema = TypeAdapter(Ref)
    file_keys = ("folder",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for path in self.files():
            if not path.is_file():
                raise ConfigError(f"folder: no such file: {path}")

    def files(self) -> list[Path]:
        return [Path(self.folder) / f"refs({self.split_by}).p", Path(self.folder) / "instances.json"]

    def lookups(self) -> dict[str, Items]:
        instances = self.files()[1]
        boxes = ((key, item.get("bbox")) for key, item in keyed(json_list(instances, "annotations.item"), "id"))
        return {"images": keyed(json_list(instances, "images.item"), "id"), "boxes": boxes}

    def records(self) -> Stream:
        refs = load_plain(self.files()[0])
        if not isinstance(refs, list):
            raise DataError(f"{self.files()[0]}: expected a list of references, got {type(refs).__name__}")
        return listed(refs)

    def questions(self, record: Ref) -> Questions:
        if self.split not in (None, record.split):
            return
        image: ImageRecord = self._instance("images", record.image_id, ImageRecord, "image")
        box = xywh(*self._instance("boxes", record.ann_id, XYXY, "annotation"))
        name = below(self.image_folder, image.file_name)
        for sentence in dict.fromkeys(sentence.sent for sentence in record.sentences):
            yield Question(name, sentence, size=image.size, boxes=[box])

    def _instance(self, table: str, number: int, kind: Any, name: str) -> Any:
        instance = self.entry(table, str(number), kind, f"instances.json: {name} {number}")
        if instance is None:
            raise RecordError("missing_instance", f"{name} {number} is not in instances.json")
        return instance
