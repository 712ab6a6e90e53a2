"""Define the checks of the pre-flight check, collect their findings, and check a region sidecar.

Everything is read in batches. Values that are compared over a whole source are stored as 64-bit hashes in arrays.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from data_prep.common.errors import DataError
from data_prep.schema.sample import REGION_METHODS, read_manifest, sidecar_batches

LEAST_SIDE = 0.98  # side of a one-pixel box, stored as float32
TOLERANCE = 0.02  # pixels, between the stored region and the union of the stored boxes


class Check(NamedTuple):
    """Define a check: its severity, the unit in which it is counted (`files`: one is enough), and its meaning."""

    severity: Literal["error", "warning"]
    of: Literal["files", "records", "questions", "images", "rows"]
    meaning: str


CHECKS = {
    # annotations
    "annotations": Check("error", "files", "the file cannot be read to its end, or holds no sample"),
    "left_out": Check("warning", "records", "in the sidecar's rejected.jsonl: the trainer skips it too"),
    "record": Check("error", "records", "not a conversation of questions, each with its answer, about its images"),
    "empty_answer": Check("error", "records", "a question has no answer to train on"),
    "record_boxes": Check("error", "records", "objects.bbox are not boxes in pixels of the image"),
    "duplicate_sample": Check("warning", "questions", "the same image, turn and question again"),
    "answer_conflict": Check("warning", "questions", "the same image and question with another answer"),
    # images
    "url": Check("error", "images", "a URL; only files are read"),
    "no_root": Check("error", "images", "an image, but the source has no image_root"),
    "outside_root": Check("error", "images", "a path that leaves image_root"),
    "no_image": Check("error", "images", "no such file"),
    "bad_image": Check("error", "images", "not an image, or a damaged one"),
    "too_large": Check("error", "images", "more pixels than max_image_pixels"),
    "evaluation_image": Check("error", "images", "training data contains an image of an evaluation set"),
    "evaluation_name": Check("warning", "images", "another picture with the name of an image of an evaluation set"),
    "exif_rotated": Check("warning", "images", "carries an EXIF orientation, which is not applied"),
    "format_mismatch": Check("warning", "images", "the file's format differs from its extension"),
    "cmyk": Check("warning", "images", "CMYK colours"),
    # regions
    "sidecar": Check("error", "files", "the region sidecar cannot be read"),
    "foreign_sidecar": Check("error", "files", "the sidecar holds none of the source's questions"),
    "frame_mismatch": Check("error", "files", "boxes in text cannot be in the frame that they were read in"),
    "size_mismatch": Check("error", "rows", "the sidecar states another size than the file has"),
    "box_outside": Check("error", "rows", "a box reaches beyond the image, or is not finite"),
    "box_degenerate": Check("error", "rows", "a box less than a pixel wide or high, or with swapped corners"),
    "region_mismatch": Check("error", "rows", "the region is not the union of the boxes, clipped to the image"),
    "unknown_method": Check("error", "rows", f"a method other than {', '.join(REGION_METHODS)}"),
    "no_region": Check(
        "warning", "questions", "neither boxes in the record nor a row in a sidecar: trained without a region"
    ),
    "unused_row": Check("warning", "rows", "a row for a question that the annotations do not contain"),
}


@dataclass
class Findings:
    """Count findings by check, each with its first example, and the things that were checked."""

    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    totals: Counter[str] = field(default_factory=Counter)

    def add(self, check: str, example: str, count: int = 1) -> None:
        assert check in CHECKS
        self.counts[check] += count
        printable = " ".join(example.encode("utf-8", "backslashreplace").decode().split())  # lone surrogates are not
        self.first.setdefault(check, printable)

    def fatal(self, max_bad_fraction: float) -> list[str]:
        """Return the checks that forbid training: errors in more than that share of the unit that they count."""
        return [
            name
            for name, count in self.counts.items()
            if CHECKS[name].severity == "error" and count > max_bad_fraction * self.totals[CHECKS[name].of]
        ]


def hash64(*texts: str) -> int:
    """Hash texts; among ten million of them, two collide with a probability of 3e-6."""
    joined = "\0".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(joined, digest_size=8).digest(), "little")


# ---- the sidecar


@dataclass(frozen=True)
class SidecarRows:
    """Hold, for each row of a sidecar, hashes of sample_id and image (uint64), and width and height (rows, 2)."""

    manifest: dict[str, Any]
    ids: np.ndarray
    images: np.ndarray
    sizes: np.ndarray


def check_sidecar(folder: Path, findings: Findings) -> SidecarRows | None:
    """Check every row by itself; return None if the trainer could not read the sidecar."""
    try:
        manifest = read_manifest(folder)
        rows = _checked_rows(folder, manifest, findings)
        if len(rows.ids) != manifest["rows"]:
            raise DataError(f"{folder}: {len(rows.ids)} rows, but the manifest says {manifest['rows']}")
        if twice := len(rows.ids) - len(np.unique(rows.ids)):
            raise DataError(f"{folder}: {twice} rows repeat the sample_id of another")
    except DataError as error:
        findings.add("sidecar", str(error))
        return None
    return rows


def _checked_rows(folder: Path, manifest: dict[str, Any], findings: Findings) -> SidecarRows:
    ids, images, sizes = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)], [np.zeros((0, 2), np.int32)]
    for batch in sidecar_batches(folder):
        findings.totals["rows"] += batch.num_rows
        for check, bad in _bad_rows(folder, batch).items():
            if count := int(bad.sum()):
                key, image = (batch.column(name)[int(bad.argmax())].as_py() for name in ("sample_id", "image"))
                findings.add(check, f"{folder}: sample {key[:12]} (image {image})", count)
        ids.append(_hashes(batch.column("sample_id")))
        images.append(_hashes(batch.column("image")))
        sizes.append(_sizes(batch))
    return SidecarRows(manifest, np.concatenate(ids), np.concatenate(images), np.concatenate(sizes))


def _bad_rows(folder: Path, batch: pa.RecordBatch) -> dict[str, np.ndarray]:
    """Return, for each check of a single row, which rows fail it: bool arrays (rows,)."""
    rows, sizes = batch.num_rows, _sizes(batch)
    boxes, counts = _boxes(folder, batch)  # (boxes, 4), (rows,)
    owner = np.repeat(np.arange(rows), counts)
    low, high = boxes[:, :2], boxes[:, 2:]
    inside = ((low >= 0) & (high >= 0) & (low <= sizes[owner]) & (high <= sizes[owner])).all(1)  # False for NaN
    known = batch.column("method").to_pylist()
    return {
        "box_outside": np.bincount(owner[~inside], minlength=rows) > 0,
        "box_degenerate": np.bincount(owner[((high - low) < LEAST_SIDE).any(1)], minlength=rows) > 0,
        "region_mismatch": _region_mismatch(batch, boxes, counts, sizes),
        "unknown_method": np.array([method not in REGION_METHODS for method in known], bool),
    }


def _region_mismatch(batch: pa.RecordBatch, boxes: np.ndarray, counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Mark rows whose region is not the clipped union of their boxes; a row without boxes must have none."""
    column = batch.column("region")
    has_region, has_boxes = column.is_valid().to_numpy(zero_copy_only=False), counts > 0
    bad = has_region != has_boxes
    region = np.full((batch.num_rows, 4), np.nan, np.float32)
    region[has_region] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, 4)
    if not has_boxes.any():
        return bad
    starts = (np.cumsum(counts) - counts)[has_boxes]
    limit = sizes[has_boxes]
    low = np.clip(np.minimum.reduceat(boxes[:, :2], starts), 0, limit)
    high = np.clip(np.maximum.reduceat(boxes[:, 2:], starts), 0, limit)
    same = (np.abs(np.hstack([low, high]) - region[has_boxes]) <= TOLERANCE).all(1)  # False for NaN
    bad[has_boxes] |= ~same
    return bad


def _boxes(folder: Path, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
    """Return all boxes (boxes, 4) and the number of boxes of each row (rows,)."""
    column = batch.column("boxes")
    inner = column.flatten()
    if column.null_count or inner.null_count:
        raise DataError(f"{folder}: a box is null")
    return inner.flatten().to_numpy(zero_copy_only=False).reshape(-1, 4), column.value_lengths().to_numpy()


def _sizes(batch: pa.RecordBatch) -> np.ndarray:
    return np.stack([batch.column(name).to_numpy() for name in ("width", "height")], 1)


def _hashes(column: pa.Array) -> np.ndarray:
    return np.fromiter(map(hash64, column.to_pylist()), np.uint64, len(column))
