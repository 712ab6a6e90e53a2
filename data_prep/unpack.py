"""Write images that parquet files contain, as in LLaVA-NeXT-Data, below an image root, where the trainer reads them.

    python -m data_prep.unpack 'data/train-*.parquet' images conversations=llava_next.jsonl

An image is written, byte for byte, to its own path, which may also be in a column imgname, or, if the table has none,
to <id>.<its format>. Files appear whole or not at all, and existing ones are skipped: run again after an interruption.
`conversations` receives the table's records with these paths in place of the images, for a configuration's
`annotations`.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tqdm import tqdm

from data_prep.common.atomic import atomic_path, write_atomically
from data_prep.common.command_line import command
from data_prep.common.errors import DataError, RecordError
from data_prep.common.fill import Checked, key
from data_prep.files.images import MAX_IMAGE_PIXELS, expect_large_images, image_path, read_embedded
from data_prep.files.streams import errors_as, parquet_rows
from data_prep.schema.data_source import existing_paths
from data_prep.sources.base import ImageCells, look_up

CONVERSATIONS = ("conversations", "data_source")


@dataclass(frozen=True)
class UnpackArguments(Checked):
    """Choose the files to read and the places to write to."""

    parquet: str = field(metadata={"help": "The parquet files, by path or glob; column image {bytes, path}."})
    image_root: str = field(metadata={"help": "The folder for the images."})
    conversations: str | None = key(
        None, "The JSONL file to write: id, image (its path), conversations and data_source."
    )
    max_image_pixels: int = key(
        MAX_IMAGE_PIXELS, "The largest image that is written, in pixels; a larger one is refused."
    )

    def mistakes(self) -> Iterator[str]:
        if not existing_paths(self.parquet):
            yield f"parquet: no such file: {self.parquet}"


@command("data_prep.unpack", UnpackArguments, positionals=("parquet", "image_root"))
def main(arguments: UnpackArguments) -> None:
    """Put the images of parquet files below an image root."""
    unpack(arguments)


def unpack(arguments: UnpackArguments) -> None:
    """Write every missing image; a bad row is reported on stderr and skipped.

    Raises:
        DataError: a file is not parquet or cannot be written.
    """
    expect_large_images()
    records = _records(arguments)
    if arguments.conversations is None:
        for _ in records:
            pass
        return
    path = Path(arguments.conversations)
    with errors_as(str(path)), atomic_path(path) as partial, partial.open("w") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def _records(arguments: UnpackArguments) -> Iterator[dict[str, Any]]:
    """Yield the records with paths for images, each once its image exists."""
    root = Path(arguments.image_root).absolute()
    paths = existing_paths(arguments.parquet)
    written = refused = 0
    rows = parquet_rows(paths, _columns(paths[0]), block=1)
    for number, row in enumerate(tqdm(rows, total=rows.size, unit=" rows", disable=None)):
        values = row.load()
        try:
            image, new = _unpack_row(root, values, arguments.max_image_pixels)
        except RecordError as error:
            refused += 1
            tqdm.write(f"row {number}: {error}", file=sys.stderr)
            continue
        written += new
        record = {"id": values.get("id"), **({"image": image} if image else {})}
        yield record | {name: values[name] for name in CONVERSATIONS if name in values}
    print(f"{root}: {written:,} images written, {refused:,} of {rows.size:,} rows refused")


def _columns(path: Path) -> list[str]:
    with errors_as(f"{path}: not parquet"):
        names = pq.read_schema(path).names
    if "image" not in names:
        raise DataError(f"{path}: no column 'image', but {names}")
    return [name for name in (*ImageCells.model_fields, *CONVERSATIONS) if name in names]


def _unpack_row(root: Path, values: dict[str, Any], max_pixels: int) -> tuple[str | None, bool]:
    """Write a row's image if it is missing; return its path, or None without an image, and whether it was written."""
    cells: ImageCells = look_up(ImageCells, values, "row")
    image = cells.image_of()
    if not image.data:
        return image.path, False
    data = image.data
    name, _ = read_embedded(data, image.path, cells.id, max_pixels)
    path = image_path(root, name)
    with errors_as(str(path)):
        if path.exists():
            if path.read_bytes() != data:
                raise RecordError("conflict", f"{path} exists already, with another image")
            return name, False
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    return name, True


if __name__ == "__main__":
    main()
