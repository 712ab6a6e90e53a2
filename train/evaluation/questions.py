"""Load the questions of an evaluation: held-out samples with one answer each, or benchmarks with a metric each."""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets

from crop_model.processing_crop_llava import CropLlavaProcessor
from data_prep.common.errors import ConfigError, DataError
from train.arguments.data import DataArguments
from train.data.samples import load_samples
from train.evaluation.benchmarks.question import BenchmarkQuestion
from train.evaluation.benchmarks.samples import load_benchmark
from train.evaluation.benchmarks.source import benchmark_of, read_questions

from .arguments import EvaluateArguments
from .metrics.rows import ScoredRow
from .metrics.table import METRICS

QuestionsByLabel = Mapping[str, Sequence[BenchmarkQuestion]]  # questions by a benchmark's label


def read_benchmarks(arguments: EvaluateArguments, data: DataArguments) -> QuestionsByLabel:
    """Read the first `num_samples` questions of every benchmark; none if the evaluation uses samples.

    Raises:
        ConfigError: neither samples nor benchmarks, or both.
        DataError: as of `read_questions`.
    """
    if not data.eval_data and not arguments.benchmarks:
        raise ConfigError("eval_data: no questions to ask")
    if data.eval_data and arguments.benchmarks:
        raise ConfigError("benchmarks: they are evaluated apart from eval_data; leave one of the two out")
    return {source.label: read_questions(source)[: arguments.num_samples] for source in arguments.benchmarks}


def load_questions(
    arguments: EvaluateArguments, data: DataArguments, questions: QuestionsByLabel, processor: CropLlavaProcessor
) -> datasets.Dataset:
    """Load the rows for a model with that processor, with the columns of `load_samples` or of `load_benchmark`."""
    if not arguments.benchmarks:
        samples = load_samples(data.eval_data, processor, data.max_length)
        return samples.select(range(min(arguments.num_samples or len(samples), len(samples))))
    return datasets.concatenate_datasets(
        [load_benchmark(source, processor, data.max_length, questions[source.label]) for source in arguments.benchmarks]
    )


def scored(row: Mapping[str, Any], answer: str) -> ScoredRow | None:
    """Score an answer by its benchmark's metric; None for a sample that belongs to no benchmark.

    Raises:
        DataError: targets that do not fit the metric.
    """
    if "benchmark" not in row:
        return None
    targets, choices = tuple(row["targets"]), tuple(row["choices"])
    try:
        score = METRICS[benchmark_of(row["benchmark"]).metric].score(answer, targets, choices)
    except DataError as error:
        raise DataError(f"{row['record']}: {error}") from None
    return ScoredRow(row["question_id"], answer, targets, choices, row["group"], row["image_key"], score)
