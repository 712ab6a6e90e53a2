"""Store an evaluation's answers batch by batch, so that a killed evaluation can resume.

    output_dir/answers/<key of the row>/<any name>.jsonl     one line per batch, as soon as it is answered

The key covers everything that determines an answer: the row, the files of its checkpoint, the questions with their
regions, and the batches. Batches are the same for any number of processes, so that a run may resume with another
number.
"""

import hashlib
import json
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from .prediction import Prediction

FOLDER = "answers"
PREDICTIONS = TypeAdapter(list[Prediction])  # makes tuples of JSON's lists


class AnswerCache:
    """Store the answered batches of one row.

    Args:
        output_dir: folder of the evaluation.
        made_of: everything that determines the answers; the key is a hash of its JSON.
    """

    def __init__(self, output_dir: Path, made_of: Mapping[str, Any]) -> None:
        key = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()
        self.folder = output_dir / FOLDER / key[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._path = self.folder / f"{uuid.uuid4().hex}.jsonl"

    def read(self) -> dict[int, list[Prediction]]:
        """Read the stored batches by number."""
        return {
            number: predictions for path in sorted(self.folder.glob("*.jsonl")) for number, predictions in _read(path)
        }

    def add(self, number: int, predictions: Sequence[Prediction]) -> None:
        """Store a batch."""
        line = json.dumps({"batch": number, "predictions": [asdict(prediction) for prediction in predictions]})
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def remove_answers(output_dir: Path) -> None:
    """Remove the answers of all rows, so that no evaluation resumes from them."""
    shutil.rmtree(output_dir / FOLDER, ignore_errors=True)


def _read(path: Path) -> Iterable[tuple[int, list[Prediction]]]:
    """Yield the batches of a file; a last line that a kill has truncated is skipped."""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            batch = json.loads(line)
            yield batch["batch"], PREDICTIONS.validate_python(batch["predictions"])
