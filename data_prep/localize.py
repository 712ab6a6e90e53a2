"""Fill in regions by a localizer, for the rows of a sidecar without evidence of a region, or for all rows.

    python -m data_prep.localize REGIONS OUT localizer=EXPORT image_root=IMAGES [key=value ...]
    torchrun --nproc_per_node 8 --module data_prep.localize ...        the processes share the pieces

    sidecar ─► rows to fill, by sample_id ─► pieces of fixed rows ─► .OUT.pieces/00000.json ... ─► OUT, a sidecar
                                              └─ process r of p takes every p-th

A piece appears whole or not at all, and an existing one is not computed again: run again after an interruption. Pieces
and the batches in them follow from the data alone, so that the result is the same, to the byte, for any number of
processes and interruptions on machines of the same kind.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import TypeAdapter
from tqdm import tqdm

from crop_model.localization.base import LocatedRegion, RegionLocalizer
from crop_model.localization.detected import THRESHOLD, ZeroShotLocalizer
from crop_model.localization.generated import Localizer
from data_prep.common.atomic import write_atomically
from data_prep.common.command_line import command
from data_prep.common.errors import ConfigError, DataError, RecordError, one_line
from data_prep.common.fill import Checked, key
from data_prep.files.images import MAX_IMAGE_PIXELS, ImageFiles, expect_large_images, open_rgb
from data_prep.schema.sample import RegionAnnotation, file_hashes, read_regions, write_regions

ROWS_PER_PIECE = 512
POLL_S = 0.5
WAIT_S = 3600.0  # for which the first process waits for a new piece of another
_PREDICTIONS = TypeAdapter(list[LocatedRegion])
SIDECAR_METHODS = {"trained": "localizer", "zero_shot": "zero_shot"}  # method in a sidecar by kind of localizer


@dataclass(frozen=True)
class LocalizeArguments(Checked):
    """Choose the rows to fill and the localizer."""

    regions: str = field(metadata={"help": "The sidecar folder to read."})
    out: str = field(metadata={"help": "The sidecar folder to write: all rows, some with new regions."})
    localizer: str = field(
        metadata={"help": "The folder or Hub name of a model that the Auto classes load, such as an export."}
    )
    image_root: str = field(metadata={"help": "The folder that image paths are relative to."})
    rows: str = key(
        "unknown",
        "The rows to fill: unknown, those without a region (method global, flag no_evidence), or all, for a training "
        "on the localizer's own regions.",
        choices=("unknown", "all"),
    )
    localizer_kind: str = key(
        "trained",
        "The kind: a model trained to write boxes, or (zero_shot) a grounding detector, GroundingDINO or OWLv2, "
        "whose text query is the question. The rows' method names it: localizer or zero_shot.",
        choices=tuple(SIDECAR_METHODS),
    )
    threshold: float | None = key(
        None,
        "The lowest probability of a region; a less probable one becomes the whole image, flagged low_confidence. A "
        "detector's region is the union of the boxes that score higher. "
        f"null: 0 for a trained one, {THRESHOLD} for zero_shot.",
    )
    batch_size: int = key(8, "The number of questions per batch; another number rounds differently.")
    dtype: str = key("float32", "The type of the weights.", choices=("float32", "bfloat16"))
    max_image_pixels: int = key(MAX_IMAGE_PIXELS, "The largest image that is read, in pixels; a larger one is refused.")
    min_pixels: int | None = key(
        None, "The smallest size in pixels that Qwen2-VL resizes an image to; null: the model's own value."
    )
    max_pixels: int | None = key(
        None,
        "The largest size in pixels that Qwen2-VL resizes an image to, 784 per token; null: the model's own value.",
    )

    def mistakes(self) -> Iterator[str]:
        for name in ("regions", "image_root"):
            if not Path(getattr(self, name)).is_dir():
                yield f"{name}: no such folder: {getattr(self, name)}"
        if not 0 <= self.least <= 1:
            yield f"threshold: expected a probability, got {self.threshold}"
        if self.batch_size < 1 or ROWS_PER_PIECE % self.batch_size:
            yield f"batch_size: {self.batch_size} does not divide {ROWS_PER_PIECE}, the rows of a piece"
        if Path(self.out).resolve() == Path(self.regions).resolve():
            yield "out: is the sidecar that is read"
        if self.localizer_kind == "zero_shot" and self.pixels:
            yield f"{min(self.pixels)}: of Qwen2-VL, not of a grounding detector"

    @property
    def pixels(self) -> dict[str, int]:
        """Return min_pixels and max_pixels if they are set."""
        return {name: value for name in ("min_pixels", "max_pixels") if (value := getattr(self, name)) is not None}

    @property
    def least(self) -> float:
        """Return the threshold, or the kind's default."""
        if self.threshold is not None:
            return self.threshold
        return THRESHOLD if self.localizer_kind == "zero_shot" else 0.0


class Pieces:
    """Store predictions by piece in a folder beside the sidecar.

    Raises:
        ConfigError: the folder holds pieces of other data or arguments.
    """

    def __init__(self, out: Path, plan: dict[str, Any]):
        self.folder = out.with_name(f".{out.name}.pieces")
        self.folder.mkdir(parents=True, exist_ok=True)
        text, path = json.dumps(plan, sort_keys=True), self.folder / "plan.json"
        if not path.exists():
            write_atomically(path, text)
        if path.read_text() != text:
            raise ConfigError(f"out: {self.folder} holds the pieces of other data or keys; finish those, or remove it")

    def path(self, number: int) -> Path:
        """Return the file of one piece."""
        return self.folder / f"{number:05d}.json"

    def write(self, number: int, predictions: Sequence[LocatedRegion]) -> None:
        """Write the predictions for the rows of a piece."""
        write_atomically(self.path(number), _PREDICTIONS.dump_json(list(predictions)))

    def read(self, number: int) -> list[LocatedRegion]:
        """Read the predictions of a piece."""
        return _PREDICTIONS.validate_json(self.path(number).read_bytes())

    def wait(self, count: int) -> None:
        """Wait until all pieces exist; DataError after `WAIT_S` without a new one."""
        missing, since = count, time.monotonic()
        while missing:
            remaining = sum(not self.path(number).exists() for number in range(count))
            if remaining < missing:
                missing, since = remaining, time.monotonic()
            elif time.monotonic() - since > WAIT_S:
                raise DataError(f"{self.folder}: {missing} of {count} pieces did not come; run again")
            else:
                time.sleep(POLL_S)


def localize(arguments: LocalizeArguments, rank: int = 0, processes: int = 1) -> None:
    """Fill this process's pieces; the first process then writes the sidecar.

    Raises:
        ConfigError: there are pieces of other data or arguments.
        DataError: no sidecar, or an image that does not open or has another size than its row states.
    """
    expect_large_images()
    table = read_regions(arguments.regions)
    keys = [key for key in table if arguments.rows == "all" or _is_unknown(table[key])]
    settings = asdict(arguments) | {"regions": Path(arguments.regions).name, "out": None, "image_root": None}
    plan = {"arguments": settings, "inputs": file_hashes([arguments.regions])}
    pieces = Pieces(Path(arguments.out), plan)
    starts = range(0, len(keys), ROWS_PER_PIECE)
    mine = [number for number in range(len(starts)) if number % processes == rank and not pieces.path(number).exists()]
    if mine:
        localizer = _load(arguments)
        images = ImageFiles(arguments.image_root)
        for number in tqdm(mine, unit=" pieces", disable=None):
            rows = [table[key] for key in keys[starts[number] : starts[number] + ROWS_PER_PIECE]]
            pieces.write(number, _predict(localizer, images, rows, arguments))
    if rank == 0:
        pieces.wait(len(starts))
        predictions = [prediction for number in range(len(starts)) for prediction in pieces.read(number)]
        filled = dict(table)
        for key, prediction in zip(keys, predictions, strict=True):
            filled[key] = _filled(table[key], prediction, arguments)
        write_regions(arguments.out, list(filled.values()), plan)
        print(f"{arguments.out}: {len(table):,} rows, {len(keys):,} of them by the localizer")
        shutil.rmtree(pieces.folder)


def _is_unknown(row: RegionAnnotation) -> bool:
    return row.method == "global" and "no_evidence" in row.flags


def _load(arguments: LocalizeArguments) -> RegionLocalizer:
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    options: dict[str, Any] = {"dtype": getattr(torch, arguments.dtype), "device": device, **arguments.pixels}
    kind = ZeroShotLocalizer if arguments.localizer_kind == "zero_shot" else Localizer
    try:
        return kind.from_pretrained(arguments.localizer, threshold=arguments.least, **options)
    except (OSError, ValueError) as error:
        raise ConfigError(f"localizer {arguments.localizer}: {one_line(error)}") from error


def _predict(
    localizer: RegionLocalizer,
    images: ImageFiles,
    rows: Sequence[RegionAnnotation],
    arguments: LocalizeArguments,
) -> list[LocatedRegion]:
    predictions: list[LocatedRegion] = []
    for start in range(0, len(rows), arguments.batch_size):
        batch = rows[start : start + arguments.batch_size]
        opened = [_open(images, row, arguments.max_image_pixels) for row in batch]
        predictions += localizer.predict(opened, [row.question for row in batch], arguments.batch_size)
    return predictions


def _open(images: ImageFiles, row: RegionAnnotation, max_pixels: int) -> Image.Image:
    name = f"sample {row.sample_id}"
    try:
        return open_rgb(Path(images.path(name, row.image)), max_pixels, (row.width, row.height))
    except RecordError as error:
        raise DataError(f"{name}: {error}") from None


def _filled(row: RegionAnnotation, prediction: LocatedRegion, arguments: LocalizeArguments) -> RegionAnnotation:
    flags = [flag for flag in row.flags if flag not in ("no_evidence", "low_confidence", "agreement")]
    flags += ["low_confidence"] if prediction.confidence < arguments.least else []
    boxes = [] if prediction.region is None else [prediction.region]
    method = SIDECAR_METHODS[arguments.localizer_kind]
    return replace(row, boxes=boxes, region=prediction.region, method=method, score=prediction.confidence, flags=flags)


@command("data_prep.localize", LocalizeArguments, positionals=("regions", "out"))
def main(arguments: LocalizeArguments) -> None:
    """Fill the rows of a sidecar by a localizer."""
    localize(arguments, int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))


if __name__ == "__main__":
    main()
