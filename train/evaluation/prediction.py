"""Hold one question's answer, and write the files of answers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from crop_model.regions import Box

from .metrics.rows import ScoredRow


@dataclass(frozen=True)
class Prediction:
    """Hold one answered question."""

    index: int  # in the data
    sample_id: str
    kind: str | None
    question: str
    target: str
    answer: str
    correct: bool
    region: Box | None  # the model's input, in pixels
    annotated_patches: int  # patches of the annotated region; 0: it has none
    images: int
    visual_tokens: int
    text_tokens: int  # text tokens in the prompt
    benchmark: str | None = None
    scored: ScoredRow | None = None  # input of the benchmark's metric


def by_benchmark(predictions: Sequence[Prediction]) -> dict[str, list[ScoredRow]]:
    """Group the scored answers by benchmark."""
    answers: dict[str, list[ScoredRow]] = {}
    for prediction in predictions:
        if prediction.benchmark is not None and prediction.scored is not None:
            answers.setdefault(prediction.benchmark, []).append(prediction.scored)
    return answers


def write_predictions(folder: Path, number: int, row: Mapping[str, Any], predictions: Sequence[Prediction]) -> None:
    """Write `predictions-<row>.jsonl` in the order of the data."""
    name = f"predictions-{number:02d}-{row['method']}-{row['token_budget']}-{row['region_source']}.jsonl"
    lines = [json.dumps(asdict(prediction), ensure_ascii=False) for prediction in predictions]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def clear_predictions(folder: Path) -> None:
    """Remove the files of an earlier evaluation with other rows."""
    for path in folder.glob("predictions-*.jsonl"):
        path.unlink()
