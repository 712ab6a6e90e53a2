"""Pieces of a sidecar in the making: written by many processes in any order, put together once all are there.

    <out>.work/plan.json              what is being made: arguments, hashes of inputs; another plan is refused
               tables/                look-up tables (data_prep.index)
               shard-00000.parquet    the rows of the first records, sorted by sample_id
               shard-00000.jsonl      what of them was rejected; written first: a shard is whole once it is there
               ...
               count                  how many shards there are; written by whoever reached the end of the input

Every shard holds the questions of a fixed number of records, so its bytes depend on nothing else.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from .records import IMAGE_TAG
from .sample import MANIFEST, ROWS_PER_PART, SCHEMA, SCHEMA_VERSION, DataError, write_parts

ROW_GROUP = 5_000  # rows; a shard's rows in a range of ids are found by row group
PLAN, COUNT = "plan.json", "count"
REJECTED, SAMPLES = "rejected.jsonl", "samples"

# A shard's rows carry what the sidecar leaves out: what the samples need, and the record's name.
SHARD_SCHEMA = pa.schema(
    [
        *SCHEMA,
        pa.field("answer", pa.string(), nullable=False),
        pa.field("kind", pa.string()),
        pa.field("record", pa.int64(), nullable=False),
    ]
)
UTTERANCE = ("role", "content", "type")


class Work:
    """The folder of shards beside the sidecar `out`.

    Args:
        out: folder of the finished sidecar.
        source: name of the sidecar's source.
        plan: what is being made: `arguments`, and `inputs` as of `file_hashes`; the manifest carries it.

    Raises:
        DataError: the folder holds the shards of another plan.
    """

    def __init__(self, out: Path, source: str, plan: Mapping[str, Any]) -> None:
        self.out, self.source, self.plan = out, source, plan
        self.folder = out.with_name(f"{out.name}.work")
        if self.is_done():
            shutil.rmtree(self.folder, ignore_errors=True)  # of a run that was killed at its very end
            return
        if out.exists():
            raise DataError(f"{out}: holds something else, or was made from other input; remove it or change out")
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / PLAN
        text = json.dumps({**plan, "source": source, "schema_version": SCHEMA_VERSION}, indent=2)
        if path.exists() and path.read_text() != text:
            raise DataError(f"{self.folder}: shards of other arguments or inputs; remove it, or choose another out")
        write_atomically(path, text.encode())

    def is_done(self) -> bool:
        """Whether the sidecar is there, made by this very plan."""
        path = self.out / MANIFEST
        if not path.exists():
            return False
        manifest = json.loads(path.read_text())
        made = {key: manifest.get(key) for key in self.plan}
        return made == json.loads(json.dumps(self.plan)) and manifest.get("source") == self.source

    @property
    def tables(self) -> Path:
        """Folder of look-up tables."""
        return self.folder / "tables"

    def has_shard(self, number: int) -> bool:
        return self._shard(number).exists()

    def write_shard(self, number: int, rows: Sequence[tuple[Any, ...]], rejected: Sequence[Mapping[str, Any]]) -> None:
        """Writes a shard whole, of rows with the columns of `SHARD_SCHEMA`; it is there once its parquet file is."""
        columns = zip(*rows, strict=True) if rows else [[] for _ in SHARD_SCHEMA]
        table = pa.Table.from_pydict(dict(zip(SHARD_SCHEMA.names, columns, strict=True)), schema=SHARD_SCHEMA)
        sink = pa.BufferOutputStream()
        pq.write_table(_by_id(table), sink, row_group_size=ROW_GROUP)
        write_atomically(self._rejected(number), "".join(map(_line, rejected)).encode())
        write_atomically(self._shard(number), sink.getvalue().to_pybytes())

    def write_count(self, shards: int) -> None:
        """How many shards the input has, told by whoever read it to its end."""
        write_atomically(self.folder / COUNT, str(shards).encode())

    def finish(self, samples: bool, more: Mapping[str, Any]) -> bool:
        """Puts the sidecar together if every shard is there; False where some are not.

        Args:
            samples: write the questions as well, for the trainer to read.
            more: for the manifest, besides the plan.
        """
        with FileLock(self.folder / "lock"):
            if not (self.folder / PLAN).exists():
                return True  # another process did it while this one waited
            count = self.folder / COUNT
            if not count.exists() or not all(map(self.has_shard, range(int(count.read_text())))):
                return False
            self._assemble(range(int(count.read_text())), samples, more)
        shutil.rmtree(self.folder)
        return True

    def summary(self) -> str:
        """A finished sidecar in a few lines."""
        manifest = json.loads((self.out / MANIFEST).read_text())
        lines = [f"{self.out}: {manifest['rows']:,} questions"]
        for name in ("methods", "flags", "rejected"):
            counts = ", ".join(f"{key} {count:,}" for key, count in manifest[name].items())
            lines.append(f"  {name}: {counts or 'none'}")
        return "\n".join(lines)

    def _shard(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.parquet"

    def _rejected(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.jsonl"

    def _assemble(self, shards: range, samples: bool, more: Mapping[str, Any]) -> None:
        fresh = self.folder / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)  # of a run that was killed here
        fresh.mkdir()
        with (fresh / REJECTED).open("wb") as rejected:
            for number in shards:
                rejected.write(self._rejected(number).read_bytes())
            parts = self._parts(shards, rejected, fresh / SAMPLES if samples else None)
            tables = (part.select(SCHEMA.names) for part in parts)
            write_parts(fresh, self.source, tables, {**self.plan, **more})
        reasons = Counter(json.loads(line)["reason"] for line in (fresh / REJECTED).open("rb"))
        manifest = json.loads((fresh / MANIFEST).read_text())
        manifest["rejected"] = dict(sorted(reasons.items()))
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        fresh.rename(self.out)

    def _parts(self, shards: range, rejected: IO[bytes], samples: Path | None) -> Iterator[pa.Table]:
        """Tables sorted by sample_id, each of one range of ids; ids are hashes, so ranges hold about equally many."""
        paths = [self._shard(number) for number in shards]
        rows = sum(pq.read_metadata(path).num_rows for path in paths)
        count = max(1, -(-rows // ROWS_PER_PART))
        bounds = [f"{16**8 * part // count:08x}" for part in range(count)] + ["g"]
        for number, (low, high) in enumerate(pairwise(bounds)):
            ids = (pc.field("sample_id") >= low) & (pc.field("sample_id") < high)
            table = pa.concat_tables(pq.read_table(path, filters=ids, schema=SHARD_SCHEMA) for path in paths)
            table, repeated = _split_repeated(_by_id(table))
            rejected.writelines(_line(_repeated(row)).encode() for row in repeated.to_pylist())
            if samples is not None:
                _write_samples(samples, number, table)
            yield table


def write_atomically(path: Path, content: bytes) -> None:
    """The file appears whole or not at all, whenever the process or the machine stops."""
    partial = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _by_id(table: pa.Table) -> pa.Table:
    """Sorted by sample_id; of equal ones in the order of the input."""
    return table.take(pc.sort_indices(table, [("sample_id", "ascending"), ("record", "ascending")]))


def _split_repeated(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The first row of every sample_id, and the others."""
    ids = table.column("sample_id")
    if len(ids) < 2:
        return table, table.slice(0, 0)
    again = pa.concat_arrays(
        [pa.array([False]), *pc.equal(ids.slice(1), ids.slice(0, len(ids) - 1).combine_chunks()).chunks]
    )
    return table.filter(pc.invert(again)), table.filter(again)


def _repeated(row: Mapping[str, Any]) -> dict[str, Any]:
    message = f"the same image and question again (sample {row['sample_id']})"
    return rejection(row["record"], "duplicate", message, row["image"], row["question"])


def rejection(record: int, reason: str, message: str, image: str, question: str) -> dict[str, Any]:
    """A line of `rejected.jsonl`; records count from 0 in the order of the input."""
    return {"record": record, "reason": reason, "message": message, "image": image, "question": question}


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value) + "\n"


def _write_samples(folder: Path, number: int, table: pa.Table) -> None:
    """The questions that have an answer as the trainer reads them: {id, images, messages}."""
    table = table.filter(pc.not_equal(table.column("answer"), ""))
    rows = table.num_rows
    if not rows:
        return
    asked = pc.binary_join_element_wise(f"{IMAGE_TAG}\n", table.column("question"), "").combine_chunks()
    said = pa.concat_arrays([asked, table.column("answer").combine_chunks()])
    order = pa.array(np.arange(2 * rows).reshape(2, rows).T.ravel())  # question, answer, question, answer, ...
    roles = pa.array(np.array(["user", "assistant"])[np.arange(2 * rows) % 2])
    kinds = pa.concat_arrays([table.column("kind").combine_chunks(), pa.nulls(rows, pa.string())])
    utterances = pa.StructArray.from_arrays([roles, said.take(order), kinds.take(order)], names=UTTERANCE)
    messages = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * 2, pa.int32()), utterances)
    images = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1), pa.int32()), table.column("image").combine_chunks())
    folder.mkdir(exist_ok=True)
    samples = pa.table({"id": table.column("sample_id"), "images": images, "messages": messages})
    pq.write_table(samples, folder / f"part-{number:05d}.parquet", row_group_size=ROW_GROUP)
