"""Write and read the results of an evaluation: the table as JSON and Markdown, and the environment."""

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from data_prep.common.atomic import write_atomically
from data_prep.common.command_line import read_text
from data_prep.common.errors import ConfigError
from data_prep.common.markdown import markdown_table
from train.backbones.checkpoint import Checkpoint
from train.checkpoints.environment import describe_environment

from .arguments import RowSpec
from .benchmark_scores import Scored, add_retention, benchmark_table, describe_benchmarks
from .metrics.intervals import wilson_interval
from .metrics.matching import accuracy_by_group
from .prediction import Prediction, by_benchmark

RESULT_FILE, TABLE_FILE = "evaluation.json", "evaluation.md"


def describe_row(
    spec: RowSpec, checkpoint: Checkpoint, predictions: Sequence[Prediction], ttft_s: float | None, dtype: torch.dtype
) -> dict[str, Any]:
    """Compute one row of evaluation.json except its `relative_accuracy`, which needs the other rows.

    Args:
        checkpoint: the evaluated model, with the row's compressor.
        predictions: those of all questions, at least one.
        ttft_s: time to the first token in seconds, or None.
        dtype: dtype of weights and KV cache.
    """
    correct = [prediction.correct for prediction in predictions]
    images = sum(prediction.images for prediction in predictions)
    text_tokens = round(statistics.median(prediction.text_tokens for prediction in predictions))
    config, method = checkpoint.config, spec.training_free()
    cost = method.cost(config, text_tokens, dtype.itemsize)
    budget = int(cost["tokens_after_pruning"])
    visual_tokens = sum(prediction.visual_tokens for prediction in predictions) / max(1, images)
    visual_tokens = visual_tokens * cost["mean_tokens"] / config.token_budget  # averaged over layers
    answers = by_benchmark(predictions)
    row = {
        "method": method.label(config),
        "trained": checkpoint.is_trained,
        "token_budget": budget,
        "visual_tokens": visual_tokens,
        "retention_ratio": visual_tokens / math.prod(config.patch_grid),
        "region_source": spec.region_source,
        "localizer": spec.localizer,
        "accuracy": sum(correct) / len(correct),
        "accuracy_ci95": list(wilson_interval(sum(correct), len(correct))),
        "relative_accuracy": None,
        "by_type": accuracy_by_group(correct, [_groups(prediction, budget) for prediction in predictions]),
        "text_tokens": text_tokens,
        **{key: cost[key] for key in ("macs", "flops", "kv_bytes")},
        "ttft_s": ttft_s,
        "seed": spec.seed,
        "checkpoint": spec.checkpoint,
    }
    return row | describe_benchmarks(answers) if answers else row


def _groups(prediction: Prediction, token_budget: int) -> list[str]:
    """Return the type of the question, and how its annotated region compares with the budget."""
    fits = "fits" if prediction.annotated_patches <= token_budget else "exceeds"
    size = f"region {fits} budget" if prediction.annotated_patches else "no region"
    return [size] if prediction.kind is None else [prediction.kind, size]


def full_token_row(rows: Sequence[Mapping[str, Any]]) -> int | None:
    """Return the number of the first full-token row, preferably one before fine-tuning; None without one."""
    full = sorted((row["trained"], number) for number, row in enumerate(rows) if row["method"] == "none")
    return full[0][1] if full else None


def add_relative_accuracy(rows: Sequence[dict[str, Any]]) -> None:
    """Fill in `relative_accuracy`, the accuracy over that of `full_token_row`; None without one."""
    number = full_token_row(rows)
    full = 0 if number is None else rows[number]["accuracy"]
    for row in rows:
        row["relative_accuracy"] = row["accuracy"] / full if full > 0 else None


def write_report(
    folder: Path,
    dataset: str,
    questions: int,
    rows: list[dict[str, Any]],
    dtype: str,
    rows_left: int = 0,
    answers: Sequence[Scored] = (),
) -> dict[str, Any]:
    """Rewrite evaluation.json and evaluation.md; return the content of the JSON file.

    Args:
        dataset, questions: name of the data, and number of questions.
        rows: all rows so far, from `describe_row`.
        dtype: dtype of the weights.
        rows_left: number of rows still to come; both files state it.
        answers: each row's answers `by_benchmark`, if benchmarks were evaluated.
    """
    if any(answers):
        add_retention(rows, answers, full_token_row(rows))
    else:
        add_relative_accuracy(rows)
    result = {
        "dataset": dataset,
        "n": questions,
        "rows": rows,
        "rows_left": rows_left,
        "environment": describe_environment(dtype),
    }
    write_atomically(folder / RESULT_FILE, json.dumps(result, indent=2) + "\n")
    write_atomically(folder / TABLE_FILE, f"# {report_text(result)}\n")
    return result


def read_evaluation(path: str | Path) -> dict[str, Any]:
    """Read the evaluation.json that `train.evaluate` wrote.

    Raises:
        ConfigError: the file is missing or is something else; the message begins with `path`.
    """
    problem = f"{path}: not an evaluation.json of train.evaluate"
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such file")
    try:
        evaluation = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{problem}: not JSON: {error}") from None
    try:
        result_table(evaluation["rows"])
    except KeyError as error:
        raise ConfigError(f"{problem}: no {error.args[0]}") from None
    except (ValueError, IndexError, TypeError, AttributeError):
        raise ConfigError(f"{problem}: it holds something else than a table's rows") from None
    if not evaluation["rows"]:
        raise ConfigError(f"{path}: an evaluation without rows")
    return evaluation


def report_text(result: Mapping[str, Any]) -> str:
    """Format a line on the questions, the table, and how to read it."""
    title = f"{result['dataset']}: {result['n']} questions"
    if result["rows_left"]:
        title += f" ({result['rows_left']} rows still to come)"
    rows, footnote = result["rows"], FOOTNOTE
    tables = result_table(rows)
    if "benchmarks" in rows[0]:
        tables, footnote = f"{tables}\n\n{benchmark_table(rows)}", f"{BENCHMARKS_NOTE} {COST_NOTE}"
    return f"{title}\n\n{tables}\n\n{footnote}"


BENCHMARKS_NOTE = (
    "Accuracy: the mean over benchmarks of each one's metric over its full score, all of the same weight, with a "
    "bootstrap interval; relative: the mean of the ratios to the full-token model's. The second table has each "
    "metric in per cent, MME's total as it is, and in brackets the per cent of the full-token model's."
)

COST_NOTE = (
    "MACs (twice as many FLOPs) and KV cache: by formula, for one image and a question of median length, vision tower "
    "included; behind a plus sign, what the localizer costs. TTFT: median time to the first token, measured one "
    "question at a time, the localizer's work included. Budget: visual tokens of an image that the last LLM layers "
    "see; tokens: their mean over all layers, which is more for methods that prune inside the LLM."
)

FOOTNOTE = f"Accuracy: exact match, with its Wilson 95 % interval; relative: over the full-token model's. {COST_NOTE}"


def result_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format the rows of an evaluation as a Markdown table."""
    header = ["method", "trained", "budget", "tokens", "retention", "regions", "accuracy %", "95 %", "relative %"]
    header += ["GMACs", "KV MB", "TTFT ms", "seed"]
    return markdown_table(header, [_cells(row) for row in rows])


def _cells(row: Mapping[str, Any]) -> list[str]:
    low, high = row["accuracy_ci95"]
    relative, ttft, localizer = row["relative_accuracy"], row["ttft_s"], ""
    if "localizer_macs" in row:
        localizer = " + ?" if row["localizer_macs"] is None else f" + {row['localizer_macs'] / 1e9:.3g}"
    return [
        row["method"],
        "yes" if row["trained"] else "no",
        str(row["token_budget"]),
        f"{row['visual_tokens']:g}",
        f"1/{1 / row['retention_ratio']:.3g}" if row["retention_ratio"] else "",  # no question has an image
        row["region_source"],
        f"{100 * row['accuracy']:.1f}",
        f"{100 * low:.1f}-{100 * high:.1f}",
        "" if relative is None else f"{100 * relative:.1f}",
        f"{row['macs'] / 1e9:.3g}{localizer}",
        f"{row['kv_bytes'] / 1e6:.3g}",
        "" if ttft is None else f"{1000 * ttft:.1f}",
        str(row["seed"]),
    ]
