"""Read Flickr30k Entities: the phrases of five captions per image, and the boxes of what they name.

    Sentences/<id>.txt     [/EN#283585/people A man] in [/EN#283588/clothing a red shirt] ...       one caption per line
    Annotations/<id>.xml   <annotation> <size> <width/> <height/> </size>
                             <object> <name>283585</name> <bndbox> <xmin/> <ymin/> <xmax/> <ymax/> </bndbox> </object>
                             <object> <name>283590</name> <scene>1</scene> <nobox>0</nobox> </object> ...

An object may have several names, and an entity several objects. Corners count from 1 and are inclusive, as in VOC:
xmin .. xmax is xmin - 1 .. xmax half-open. Entity 0 is not visible.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from defusedxml import ElementTree
from pydantic import BaseModel, Field, TypeAdapter

from data_prep.common.errors import RecordError, one_line
from data_prep.common.fill import key
from data_prep.files.streams import Stream, errors_as
from data_prep.schema.question import Question

from .base import XYXY, Questions, Sized, Source, listed, look_up

_PHRASE = re.compile(r"\[/EN#(\d+)/(\S+)\s+([^\[\]]+)\]")
_NOT_VISIBLE = "0"


class Corners(BaseModel):
    xmin: float
    ymin: float
    xmax: float
    ymax: float


class Object(BaseModel):
    name: list[str]
    bndbox: Corners | None
    scene: int
    nobox: int


class Annotation(Sized):
    objects: list[Object]


@dataclass(frozen=True)
class Flickr30k(Source):
    """Read every phrase with the boxes of its entity; phrases are for a localizer."""

    annotations: str = field(metadata={"help": "The folder Annotations."})
    sentences: str = field(metadata={"help": "The folder Sentences."})
    split: str | None = key(None, "train.txt, val.txt or test.txt: ids of images, one per line; null: all.")

    licence = "research and education, not commercial"
    schema = TypeAdapter(Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,100}$")])
    file_keys = ("annotations", "sentences", "split")

    def records(self) -> Stream:
        """Yield the images' ids; their files are read by the process that owns the record."""
        if self.split is None:
            return listed(sorted(path.stem for path in Path(self.sentences).glob("*.txt")))
        with errors_as(self.split):
            lines = Path(self.split).read_text(encoding="utf-8").splitlines()
        return listed([line.strip() for line in lines if line.strip()])

    def questions(self, record: str) -> Questions:
        image = f"{record}.jpg"
        phrases = _phrases(Path(self.sentences) / f"{record}.txt", image)
        annotation = _read_annotation(Path(self.annotations) / f"{record}.xml", image)
        entities: dict[str, set[str]] = {}  # entities in this image by phrase
        for entity, _, phrase in phrases:
            entities.setdefault(phrase.casefold(), set()).add(entity)
        seen = set[tuple[str, str]]()
        for entity, kind, phrase in phrases:
            if (entity, phrase.casefold()) in seen:
                continue
            seen.add((entity, phrase.casefold()))
            if entity == _NOT_VISIBLE:
                yield RecordError("not_visible", f"{image}: {phrase!r} is marked as not visible", image, phrase)
                continue
            objects = [item for item in annotation.objects if entity in item.name]
            boxes = [_half_open(item.bndbox) for item in objects if item.bndbox]
            flags = ["low_confidence"] if len(entities[phrase.casefold()]) > 1 else []
            yield Question(
                image=image,
                text=phrase,
                turn=len(seen) - 1,
                kind=kind,
                size=annotation.size,
                boxes=boxes,
                whole_image=not boxes and any(item.scene or item.nobox for item in objects),
                flags=flags if objects else [*flags, "missing_object"],
            )


def _phrases(path: Path, image: str) -> list[tuple[str, str, str]]:
    """Return (entity, type, phrase) of every marked phrase of the captions."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RecordError("sentences", f"{path}: {error}", image) from None
    return [(entity, kind, " ".join(phrase.split())) for entity, kind, phrase in _PHRASE.findall(text)]


def _read_annotation(path: Path, image: str) -> Annotation:
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, SyntaxError, ValueError, LookupError) as error:
        raise RecordError("xml", f"{path}: {one_line(error)}", image) from None
    objects = [
        {
            "name": [name.text or "" for name in item.findall("name")],
            "bndbox": None if (box := item.find("bndbox")) is None else {side.tag: side.text for side in box},
            "scene": item.findtext("scene", "0"),
            "nobox": item.findtext("nobox", "0"),
        }
        for item in root.findall("object")
    ]
    size = {side: root.findtext(f"size/{side}") for side in ("width", "height")}
    return look_up(Annotation, {**size, "objects": objects}, str(path))


def _half_open(box: Corners) -> XYXY:
    return box.xmin - 1, box.ymin - 1, box.xmax, box.ymax
