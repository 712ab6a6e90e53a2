"""Find the regions of an instruction mix in the annotated sources it was made from, by image and question.

A mix calls the image `coco/train2017/000000000009.jpg` and asks "What is red?\\nAnswer with a single word."; its source
calls it `COCO_train2014_000000000009.jpg` and asks "What is red?". Both have the same key here.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from data_prep.common.errors import ConfigError, RecordError
from data_prep.files.lookup import Index
from data_prep.files.streams import errors_as
from data_prep.schema.sample import MANIFEST, RegionAnnotation, sidecar_batches

_COCO_PREFIX = re.compile(r"^COCO_(train|val|test)20\d\d_")
_EXTENSION = re.compile(r"\.(jpe?g|png|gif|webp|bmp|tiff?)$", re.IGNORECASE)  # any other dot belongs to the name
_ROW = TypeAdapter(RegionAnnotation)


def image_key(image: str) -> str:
    """Return the part of an image's path that data sets share: the name without folder, extension and COCO's prefix."""
    return _COCO_PREFIX.sub("", _EXTENSION.sub("", image.rpartition("/")[2]))


def question_key(question: str) -> str:
    """Return the first line of a question, case-folded and with single spaces."""
    return " ".join(question.partition("\n")[0].casefold().split())


class Joins:
    """Hold sidecars of native sources, by the prefix of the image paths that a mix uses.

    Args:
        specs: one `PREFIX=FOLDER` per sidecar.

    Raises:
        ConfigError: another form, a folder that is not a sidecar, a repeated prefix.
    """

    def __init__(self, specs: Sequence[str]) -> None:
        self.folders: dict[str, Path] = {}
        self.indexes: dict[str, Index] = {}
        for spec in specs:
            prefix, equals, folder = spec.partition("=")
            if not equals or not prefix or prefix in self.folders:
                raise ConfigError(f"joins: expected PREFIX=SIDECAR, each prefix once, got {spec!r}")
            if not (Path(folder) / MANIFEST).is_file():
                raise ConfigError(f"joins: {folder} is no region sidecar: it has no {MANIFEST}")
            self.folders[prefix] = Path(folder)

    def files(self) -> list[Path]:
        """Return the manifests, which distinguish one version of a sidecar from another."""
        return [folder / MANIFEST for folder in self.folders.values()]

    def build(self, work: Path) -> None:
        """Build the look-up tables in `work`."""
        for number, (prefix, folder) in enumerate(self.folders.items()):
            self.indexes[prefix] = Index.build(work / f"join-{number}.sqlite", _items(folder))

    def find(self, image: str, question: str) -> RegionAnnotation | None:
        """Return the annotation of the same image and question, or None; the longest matching prefix decides."""
        prefix = max((prefix for prefix in self.indexes if image.startswith(prefix)), key=len, default=None)
        if prefix is None:
            return None
        row = self.indexes[prefix].get(f"{image_key(image)}\t{question_key(question)}")
        if row is None:
            return None
        try:
            return _ROW.validate_python(row)
        except ValidationError:
            raise RecordError(
                "schema", f"the sidecar {self.folders[prefix]} has a damaged row", image, question
            ) from None


def _items(folder: Path) -> Iterator[tuple[str, dict[str, object]]]:
    for batch in sidecar_batches(folder):
        for row in batch.to_pylist():
            yield f"{image_key(row['image'])}\t{question_key(row['question'])}", row


def read_image_names(paths: Sequence[str]) -> frozenset[str]:
    """Read text files that name one image per line; return the images' keys (`image_key`)."""
    names: set[str] = set()
    for path in paths:
        with errors_as(path):
            names.update(line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return frozenset(map(image_key, names - {""}))
