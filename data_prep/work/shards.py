"""Build a sidecar from shards, which many processes write in any order and one of them assembles.

    <out>.work/plan.json              the plan: arguments and hashes of inputs; another plan is refused
               tables/                look-up tables (data_prep.files.lookup)
               shard-00000.parquet    the rows of the first records, sorted by sample_id
               shard-00000.jsonl      their rejections; written first, so that a shard is whole once its rows exist
               ...
               count                  the number of shards; written by the process that reached the end of the input
               ranges/, fresh/        during assembly; then fresh/ becomes <out>
               rejected.jsonl         the only file if no question could be used

Every shard holds the questions of a fixed number of records, so that its bytes depend on nothing else. The process that
assembles the sidecar removes the folder; others that still work in it then notice that all is done.
"""

import json
import shutil
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock
from tqdm import tqdm

from data_prep.common.atomic import write_atomically
from data_prep.common.errors import DataError
from data_prep.schema.records import IMAGE_TAG
from data_prep.schema.sample import (
    MANIFEST,
    REJECTED,
    ROWS_PER_PART,
    SCHEMA,
    SCHEMA_VERSION,
    read_manifest,
    write_parts,
)

SHARD_VERSION = 1  # version of the shards' contents; other versions are refused

ROW_GROUP = 5_000  # samples

PLAN, COUNT, LOCK = "plan.json", "count", "lock"

SAMPLES = "samples"

# A shard's rows also carry the columns that only the samples need, and the number of the record.
SHARD_SCHEMA = pa.schema(
    [
        *SCHEMA,
        pa.field("answer", pa.string(), nullable=False),
        pa.field("kind", pa.string()),
        pa.field("images", pa.list_(pa.string()), nullable=False),
        pa.field("record", pa.int64(), nullable=False),
    ]
)

UTTERANCE = ("role", "content", "type")


class Work:
    """Manage the folder of shards beside the sidecar `out`.

    Args:
        out: folder of the finished sidecar.
        source: name of the sidecar's source.
        plan: `arguments`, and `inputs` as of `file_hashes`; becomes part of the manifest.
        records_per_shard: shards of another size are refused; the sidecar does not depend on it.

    Raises:
        DataError: the folder holds the shards of another plan, or `out` holds something else.
    """

    def __init__(self, out: Path, source: str, plan: Mapping[str, Any], records_per_shard: int) -> None:
        self.out, self.source, self.plan = out, source, plan
        self.folder = out.with_name(f"{out.name}.work")
        if out.exists():  # checked first: it appears whole, with its manifest
            if not self.is_done():
                raise DataError(f"{out}: holds something else, or was made from other input; remove it or change out")
            self._remove()  # left by a run that was killed at its very end
            return
        versions = {"schema_version": SCHEMA_VERSION, "shard_version": SHARD_VERSION}
        text = json.dumps({**plan, "source": source, **versions, "records_per_shard": records_per_shard}, indent=2)
        with self._unless_done():
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / PLAN
            stored = path.read_text() if path.exists() else None
            if stored != text and (stored is not None or any(self.folder.glob("shard-*"))):
                raise DataError(
                    f"{self.folder}: shards of other arguments, inputs or program; remove it, or choose another out"
                )
            write_atomically(path, text)

    def is_done(self) -> bool:
        """Check that the sidecar exists and was made by this plan."""
        if not (self.out / MANIFEST).exists():
            return False
        manifest = read_manifest(self.out)
        made = {key: manifest.get(key) for key in self.plan}
        return made == json.loads(json.dumps(self.plan)) and manifest.get("source") == self.source

    @property
    def tables(self) -> Path:
        """Return the folder of look-up tables."""
        return self.folder / "tables"

    def has_shard(self, number: int) -> bool:
        """Check that the shard needs no more work."""
        return self._shard(number).exists() or self.is_done()

    def write_shard(self, number: int, rows: Sequence[tuple[Any, ...]], rejected: Sequence[Mapping[str, Any]]) -> None:
        """Write a shard whole, from rows with the columns of `SHARD_SCHEMA`; it exists once its parquet file does."""
        columns = zip(*rows, strict=True) if rows else [[] for _ in SHARD_SCHEMA]
        table = pa.Table.from_pydict(dict(zip(SHARD_SCHEMA.names, columns, strict=True)), schema=SHARD_SCHEMA)
        sink = pa.BufferOutputStream()
        pq.write_table(_by_id(table), sink)
        with self._unless_done():
            write_atomically(self._rejected(number), "".join(map(_line, rejected)))
            write_atomically(self._shard(number), sink.getvalue().to_pybytes())

    def write_count(self, shards: int) -> None:
        """Write the number of shards that the input has, as the process that read it to its end knows."""
        with self._unless_done():
            write_atomically(self.folder / COUNT, str(shards))

    def finish(self, samples: bool, more: Mapping[str, Any]) -> bool:
        """Assemble the sidecar if every shard exists; return False if some are missing.

        Args:
            samples: write the questions as well, for the trainer to read.
            more: further entries of the manifest.

        Raises:
            DataError: every question was rejected; the shards are removed, the list of rejections stays.
        """
        with self._unless_done(), FileLock(self.folder / LOCK):
            if not self.is_done():  # by another process, while this one waited
                count = self.folder / COUNT
                if not count.exists() or not all(map(self.has_shard, range(int(count.read_text())))):
                    return False
                self._assemble(range(int(count.read_text())), samples, more)
        self._remove()
        return True

    def summary(self) -> str:
        """Describe a finished sidecar in a few lines."""
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

    @contextmanager
    def _unless_done(self) -> Iterator[None]:
        """Tolerate a missing folder once another process has assembled the sidecar and removed it."""
        try:
            yield
        except FileNotFoundError:
            if not self.is_done():
                raise

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)  # other processes may do so too, or still write to it

    def _assemble(self, shards: range, samples: bool, more: Mapping[str, Any]) -> None:
        fresh = _fresh_folder(self.folder / "fresh")
        rows = sum(pq.read_metadata(self._shard(number)).num_rows for number in shards)
        with (fresh / REJECTED).open("wb") as rejected:
            for number in shards:
                rejected.write(self._rejected(number).read_bytes())
        if not rows:
            self._give_up(fresh / REJECTED)
        with (fresh / REJECTED).open("ab") as rejected:
            ranges = self._ranges(shards, -(-rows // ROWS_PER_PART))
            parts = _parts(ranges, rejected, fresh / SAMPLES if samples else None)
            tables = (part.select(SCHEMA.names) for part in parts)
            write_parts(fresh, self.source, tables, {**self.plan, **more})
        manifest = json.loads((fresh / MANIFEST).read_text())
        manifest["rejected"] = dict(sorted(_reasons(fresh / REJECTED).items()))
        (fresh / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        fresh.rename(self.out)

    def _give_up(self, rejected: Path) -> NoReturn:
        """Leave only the list of rejections, so that a corrected run, which has another plan, starts afresh."""
        rejected = rejected.replace(self.folder / REJECTED)
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in (REJECTED, LOCK):
                path.unlink()
        reasons = _reasons(rejected)
        worst = "".join(f": {reason} {count:,} of {reasons.total():,}" for reason, count in reasons.most_common(1))
        raise DataError(f"{self.out}: no question could be used, see {rejected}{worst}")

    def _ranges(self, shards: range, count: int) -> list[Path]:
        """Write one file per range of ids; ids are hashes, so that ranges hold about equally many rows.

        shard 0   ───┼──────┼────        every shard is sorted, read once, cut at the same ids,
        shard 1   ─────┼───┼─────
                   0.arrow 1.arrow ...   and its pieces appended to the files
        """
        folder = _fresh_folder(self.folder / "ranges")
        bounds = [f"{16**8 * number // count:08x}" for number in range(1, count)]
        paths = [folder / f"{number}.arrow" for number in range(count)]
        with ExitStack() as stack:
            files = [stack.enter_context(pa.OSFile(str(path), "wb")) for path in paths]
            writers = [stack.enter_context(pa.ipc.new_stream(file, SHARD_SCHEMA)) for file in files]
            for number in tqdm(shards, desc="shards read", disable=None):
                with pq.ParquetFile(self._shard(number)) as parquet:
                    table = parquet.read()
                ids = table.column("sample_id").to_pylist()
                cuts = [0, *(bisect_left(ids, bound) for bound in bounds), len(ids)]
                for writer, (start, end) in zip(writers, pairwise(cuts), strict=True):
                    writer.write_table(table.slice(start, end - start))
        return paths


def _fresh_folder(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)  # left by a run that was killed here
    path.mkdir()
    return path


def _parts(ranges: Sequence[Path], rejected: IO[bytes], samples: Path | None) -> Iterator[pa.Table]:
    """Yield the table of each range of ids, sorted by sample_id; repeated ids become rejections instead."""
    for number, path in enumerate(tqdm(ranges, desc="parts written", disable=None)):
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file) as stream:
            table = stream.read_all()
        path.unlink()
        table, repeated = _split_repeated(_by_id(table))
        rejected.writelines(_line(_repeated(row)).encode() for row in repeated.to_pylist())
        if samples is not None:
            _write_samples(samples, number, table)
        yield table


def _by_id(table: pa.Table) -> pa.Table:
    """Sort by sample_id, and equal ones in the order of the input."""
    return table.take(pc.sort_indices(table, [("sample_id", "ascending"), ("record", "ascending")]))


def _split_repeated(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the first row of every sample_id, and the other rows."""
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
    """Return a line of `rejected.jsonl`; records count from 0 in the order of the input."""
    return {"record": record, "reason": reason, "message": message, "image": image, "question": question}


def _reasons(rejected: Path) -> Counter[str]:
    with rejected.open("rb") as lines:
        return Counter(json.loads(line)["reason"] for line in lines)


def _line(value: Mapping[str, Any]) -> str:
    return json.dumps(value) + "\n"


def _write_samples(folder: Path, number: int, table: pa.Table) -> None:
    """Write the questions that have an answer as the trainer reads them: {id, images, messages}."""
    table = table.filter(pc.not_equal(table.column("answer"), ""))
    rows = table.num_rows
    if not rows:
        return
    tags = pc.binary_repeat(IMAGE_TAG, pc.list_value_length(table.column("images")))
    questions = pc.binary_join_element_wise(tags, table.column("question"), "\n").combine_chunks()
    texts = pa.concat_arrays([questions, table.column("answer").combine_chunks()])
    order = pa.array(np.arange(2 * rows).reshape(2, rows).T.ravel())  # question, answer, question, answer, ...
    roles = pa.array(np.array(["user", "assistant"])[np.arange(2 * rows) % 2])
    kinds = pa.concat_arrays([table.column("kind").combine_chunks(), pa.nulls(rows, pa.string())])
    utterances = pa.StructArray.from_arrays([roles, texts.take(order), kinds.take(order)], names=UTTERANCE)
    messages = pa.ListArray.from_arrays(pa.array(np.arange(rows + 1) * 2, pa.int32()), utterances)
    folder.mkdir(exist_ok=True)
    samples = pa.table({"id": table.column("sample_id"), "images": table.column("images"), "messages": messages})
    pq.write_table(samples, folder / f"part-{number:05d}.parquet", row_group_size=ROW_GROUP)
