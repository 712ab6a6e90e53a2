"""Record the samples that cannot be used, why, and whether a run has more of them than allowed.

loading ──────────────────► BadSample ─┐
collator, in any worker ──► BadSample ─┴─► all processes ─► output_dir/quarantine.jsonl, sorted, each once
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from data_prep.common.atomic import write_atomically
from data_prep.common.errors import DataError

QUARANTINE_FILE = "quarantine.jsonl"


@dataclass(frozen=True, order=True)
class BadSample:
    """Hold a line of the file. `image` is the sample's first image as far as it is known, or ""."""

    sample_id: str
    image: str
    reason: str


class Quarantine:
    """Hold the bad samples of a run. Every process holds all of them; the one that may save writes the file.

    Args:
        path: the file.
        total: samples of the data, good and bad.
        max_bad_fraction: a larger share of bad samples ends the run.
        writes: whether this process writes the file.
        resumed: continue an existing file; otherwise it is replaced.

    Raises:
        DataError: too many bad samples, here and in both methods.
    """

    def __init__(self, path: Path, total: int, max_bad_fraction: float, writes: bool, resumed: bool) -> None:
        self.path = path
        self.total = total
        self.max_bad_fraction = max_bad_fraction
        self.writes = writes
        self.samples: dict[str, BadSample] = {}
        if resumed and path.is_file():
            self.add(BadSample(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
        elif writes:
            path.unlink(missing_ok=True)

    def add(self, samples: Iterable[BadSample]) -> None:
        """Add samples and rewrite the file."""
        before = len(self.samples)
        for sample in samples:
            self.samples.setdefault(sample.sample_id, sample)
        if len(self.samples) == before:
            return
        if self.writes:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lines = [json.dumps(asdict(sample), ensure_ascii=False) for sample in sorted(self.samples.values())]
            write_atomically(self.path, "".join(f"{line}\n" for line in lines))
        if len(self.samples) > self.max_bad_fraction * self.total:
            raise DataError(
                f"{len(self.samples)} of {self.total} samples are bad, above max_bad_fraction {self.max_bad_fraction}: "
                f"see {self.path}"
            )

    def collect(self, samples: Sequence[BadSample], accelerator: Accelerator) -> None:
        """Add the samples of all processes. Every process must call it, and all stop together at the limit."""
        new = [sample for sample in samples if sample.sample_id not in self.samples]
        count = accelerator.reduce(torch.tensor(len(new), device=accelerator.device), reduction="sum")
        if count.item():
            self.add(gather_object(new))
