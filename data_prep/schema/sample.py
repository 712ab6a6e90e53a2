"""Define, write and read samples and their contextual regions.

Annotations stay as their owners publish them. Regions lie beside them in a sidecar,

    regions/<source>/part-00000.parquet ...   rows sorted by sample_id
                    /manifest.json            schema version, arguments, input hashes, counts, EXIF policy

which appears whole or not at all.
"""

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from crop_model.regions import Box
from data_prep.common.errors import DataError

SCHEMA_VERSION = 2  # 1 stored boxes as lists of a fixed size

MANIFEST, REJECTED = "manifest.json", "rejected.jsonl"  # data_prep.annotate writes the second

ROWS_PER_PART, ROWS_PER_BATCH = 500_000, 10_000

EXIF_POLICY = "stored pixels: width, height and boxes ignore EXIF orientation"

REGION_METHODS = ("human", "ocr_match", "object_match", "localizer", "zero_shot", "global")

# xmin, ymin, xmax, ymax. Not a list of fixed size: pyarrow below 26 neither writes nor reads those that contain nulls.
_BOX = pa.list_(pa.float32())

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("turn", pa.int32(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("boxes", pa.list_(_BOX), nullable=False),
        pa.field("region", _BOX),
        pa.field("method", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("flags", pa.list_(pa.string()), nullable=False),
    ]
)


def sample_id(source: str, image: str, turn: int, question: str) -> str:
    """Return the key of a question in every file: sha1 (hex) of the JSON list source, image path, turn, question."""
    texts = quoted(source), quoted(image), quoted(question)
    return hashlib.sha1(f"[{texts[0]}, {texts[1]}, {turn}, {texts[2]}]".encode()).hexdigest()


@dataclass(frozen=True)
class RegionAnnotation:
    """Hold the region of the image that answers one question.

    `boxes` and `region` are pixel xyxy, half-open, in the un-rotated image of `width` x `height`; `region` is the
    clipped union of the boxes, or None if the question needs the whole image; `method` is one of `REGION_METHODS`.
    """

    sample_id: str
    source: str
    image: str
    turn: int
    question: str
    width: int
    height: int
    boxes: Sequence[Box]
    region: Box | None
    method: str
    score: float = 1.0
    flags: Sequence[str] = field(default_factory=list)


class RegionTable(Mapping[str, RegionAnnotation]):
    """Map sample_id to the regions of one source; a row becomes a Python object only when it is looked up."""

    def __init__(self, table: pa.Table, source: str) -> None:
        self.source = source
        self._table = table
        self._rows = {key: row for row, key in enumerate(table.column("sample_id").to_pylist())}

    def __getitem__(self, key: str) -> RegionAnnotation:
        (row,) = self._table.slice(self._rows[key], 1).to_pylist()
        row["boxes"] = [tuple(box) for box in row["boxes"]]
        row["region"] = tuple(row["region"]) if row["region"] is not None else None
        return RegionAnnotation(**row)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)


def write_regions(
    folder: str | Path,
    annotations: Iterable[RegionAnnotation],
    manifest: Mapping[str, Any],
    rows_per_part: int = ROWS_PER_PART,
) -> None:
    """Write the sidecar `folder` with all its parts and its manifest, replacing an older one in one rename.

    Args:
        annotations: all annotations of one source, in any order; they are held in memory, unlike in
            `data_prep.annotate`.
        manifest: the caller's part, `arguments` and `inputs` (as of `file_hashes`); counts are added to it.

    Raises:
        DataError: no rows, more than one source, an unknown method or a repeated sample_id.
    """
    folder = Path(folder)
    rows = sorted(annotations, key=lambda row: row.sample_id)
    _check_rows(folder, rows)
    parts = (rows[start : start + rows_per_part] for start in range(0, len(rows), rows_per_part))
    tables = (pa.Table.from_pylist([asdict(row) for row in part], schema=SCHEMA) for part in parts)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        fresh = Path(temporary) / "fresh"
        fresh.mkdir()
        write_parts(fresh, rows[0].source, tables, manifest)
        if folder.exists():
            folder.rename(Path(temporary) / "old")
        fresh.rename(folder)


def write_parts(folder: Path, source: str, tables: Iterable[pa.Table], manifest: Mapping[str, Any]) -> None:
    """Write the parts of one sidecar and then its manifest, to which counts are added.

    Args:
        tables: one per part, with the columns of `SCHEMA`, sorted by sample_id over all parts.
    """
    rows, methods, flags = 0, Counter[str](), Counter[str]()
    for number, table in enumerate(tables):
        pq.write_table(table, folder / f"part-{number:05d}.parquet")
        rows += table.num_rows
        methods.update(value_counts(table.column("method")))
        flags.update(value_counts(pc.list_flatten(table.column("flags"))))
    counted = {
        "schema_version": SCHEMA_VERSION,
        "source": source,
        "rows": rows,
        "methods": dict(sorted(methods.items())),
        "flags": dict(sorted(flags.items())),
        "exif": EXIF_POLICY,
    }
    (folder / MANIFEST).write_text(json.dumps({**manifest, **counted}, indent=2) + "\n")


def value_counts(values: pa.Array | pa.ChunkedArray) -> dict[str, int]:
    """Count each value of a column."""
    return {row["values"]: row["counts"] for row in pc.value_counts(values).to_pylist()}


def file_hashes(paths: Iterable[str | Path]) -> dict[str, str]:
    """Compute the sha256 (hex) of each file by name, for a manifest's `inputs`; a folder's covers its files and names.

    Files of the same name are distinguished by the names of as many parent folders as necessary.
    """
    given = list(dict.fromkeys(map(Path, paths)))
    depths = range(1, max((len(path.parts) for path in given), default=0) + 1)
    tails = {depth: Counter(path.parts[-depth:] for path in given) for depth in depths}
    shortest = {path: next(depth for depth in depths if tails[depth][path.parts[-depth:]] == 1) for path in given}
    return {"/".join(path.parts[-depth:]): _hash(path) for path, depth in shortest.items()}


def _hash(path: Path) -> str:
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        listing = [f"{file.relative_to(path)} {_hash(file)}\n" for file in files]
        return hashlib.sha256("".join(listing).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_regions(folder: str | Path) -> RegionTable:
    """Read a sidecar folder.

    Raises:
        DataError: no manifest or parts, another schema version, a missing or differently typed column, a box that is
            not four numbers, missing rows, a repeated sample_id.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    table = pa.Table.from_batches(sidecar_batches(folder), schema=SCHEMA)
    if table.num_rows != manifest["rows"]:
        raise DataError(f"{folder}: {table.num_rows} rows, but {MANIFEST} says {manifest['rows']}")
    _check_unique(folder, table.column("sample_id").to_pylist())
    return RegionTable(table, manifest["source"])


def sidecar_batches(folder: Path) -> Iterator[pa.RecordBatch]:
    """Read the rows of a sidecar in batches, with the columns of `SCHEMA`.

    Raises:
        DataError: no parts, not parquet, a missing or differently typed column, a box that is not four numbers.
    """
    parts = sorted(folder.glob("part-*.parquet"))
    if not parts:
        raise DataError(f"{folder}: no part-*.parquet beside {MANIFEST}")
    for part in parts:
        try:
            with pq.ParquetFile(part) as parquet:
                _check_columns(part, parquet.schema_arrow)
                for batch in parquet.iter_batches(ROWS_PER_BATCH, columns=SCHEMA.names):
                    _check_boxes(part, batch)
                    yield batch.select(SCHEMA.names)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{part}: not a parquet file: {str(error).splitlines()[0]}") from error


def _check_columns(part: Path, schema: pa.Schema) -> None:
    for column in SCHEMA:
        if column.name not in schema.names:
            raise DataError(f"{part}: no column {column.name!r}")
        stored = schema.field(column.name).type
        if stored != column.type:
            raise DataError(f"{part}: column {column.name!r} is {stored}, not {column.type}")


def _check_boxes(part: Path, batch: pa.RecordBatch) -> None:
    for name, boxes in (("boxes", batch.column("boxes").flatten()), ("region", batch.column("region"))):
        if pc.any(pc.not_equal(pc.list_value_length(boxes), 4)).as_py():
            raise DataError(f"{part}: column {name!r} has a box that is not of four numbers")


def _check_rows(folder: Path, rows: Sequence[RegionAnnotation]) -> None:
    if not rows:
        raise DataError(f"{folder}: no annotations to write")
    if others := {row.source for row in rows} - {rows[0].source}:
        raise DataError(f"{folder}: one source per sidecar, got {rows[0].source!r} and {min(others)!r}")
    for row in rows:
        if row.method not in REGION_METHODS:
            known = ", ".join(REGION_METHODS)
            raise DataError(f"{folder}: sample {row.sample_id}: unknown method {row.method!r}, known: {known}")
    _check_unique(folder, [row.sample_id for row in rows])


def _check_unique(folder: Path, ids: list[str]) -> None:
    if len(set(ids)) < len(ids):
        key, count = Counter(ids).most_common(1)[0]
        raise DataError(f"{folder}: sample_id {key} occurs {count} times")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a sidecar; DataError if there is none, or one of another version."""
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{folder}: no {MANIFEST}, not a region sidecar")
    try:
        manifest = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        version = manifest.get("schema_version") if isinstance(manifest, dict) else None
        raise DataError(f"{path}: schema version {version!r}, this program reads {SCHEMA_VERSION}: derive it anew")
    if missing := {"source", "rows"} - manifest.keys():
        raise DataError(f"{path}: no key {min(missing)!r}")
    return manifest
