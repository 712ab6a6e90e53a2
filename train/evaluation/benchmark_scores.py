"""Compute the benchmarks' part of an evaluation's results: scores, and their retention of the full-token model's.

scored answers ─► summary of the metric ─► headline, its interval ─► mean over benchmarks (accuracy)
          └───► with the full-token row's for the same questions ─► retention ─► mean over benchmarks (relative)
"""

from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.common.errors import DataError
from data_prep.common.markdown import markdown_table
from train.evaluation.benchmarks.source import benchmark_of

from .metrics.intervals import Estimate, average, estimate, headline_interval, retention
from .metrics.rows import ScoredRow
from .metrics.table import METRICS, Metric

Scored = Mapping[str, Sequence[ScoredRow]]  # a row's answers by benchmark


def describe_benchmarks(scored: Scored) -> dict[str, Any]:
    """Compute the keys of a row of evaluation.json that follow from the benchmarks' scores.

    `accuracy` is the mean over benchmarks of the headline over its full score, with equal weights and a bootstrap
    interval; `benchmarks` has each one's headline as `score`, its 95 % interval, and all of its `scores`.
    """
    estimates, benchmarks = [], {}
    for label, rows in scored.items():
        metric = _metric(label)
        headline = estimate(metric, rows, label)
        estimates.append(Estimate(headline.value / metric.full_score, headline.draws / metric.full_score))
        benchmarks[label] = {
            "n": len(rows),
            "headline": metric.headline,
            "score": headline.value,
            "score_ci95": list(headline_interval(metric, rows, headline)),
            "full_score": metric.full_score,
            "retention": None,
            "scores": metric.summarize(rows),
        }
    mean = average(estimates)
    return {
        "accuracy": mean.value,
        "accuracy_ci95": list(mean.interval()),
        "relative_accuracy_ci95": None,
        "relative_to": None,
        "by_type": {},
        "benchmarks": benchmarks,
    }


def add_retention(rows: Sequence[dict[str, Any]], scored: Sequence[Scored], full: int | None) -> None:
    """Fill each benchmark's `retention` and their mean, `relative_accuracy`, with paired bootstrap intervals.

    A row that is already `relative_to` this full-token row is skipped: a bootstrap over 100,000 questions takes a
    minute.

    Args:
        rows: rows from `describe_row`.
        scored: their answers, in the same order.
        full: number of the full-token row; None: there is none yet, and nothing is filled in.
    """
    if full is None:
        return
    for row, answers in zip(rows, scored, strict=True):
        if row["relative_to"] == full:
            continue
        row["relative_to"] = full
        retentions = {label: _retention(label, answers[label], scored[full][label]) for label in answers}
        for label, share in retentions.items():
            row["benchmarks"][label]["retention"] = None if share is None else share.value
            row["benchmarks"][label]["retention_ci95"] = None if share is None else list(share.interval())
        known = [share for share in retentions.values() if share is not None]
        mean = average(known) if len(known) == len(retentions) else None
        row["relative_accuracy"] = None if mean is None else mean.value
        row["relative_accuracy_ci95"] = None if mean is None else list(mean.interval())


def _retention(label: str, rows: Sequence[ScoredRow], full_rows: Sequence[ScoredRow]) -> Estimate | None:
    """Compute the retention; None if the full-token model is correct too rarely to divide by."""
    try:
        return retention(_metric(label), rows, full_rows, label)
    except DataError:
        return None


def _metric(label: str) -> Metric:
    return METRICS[benchmark_of(label).metric]


def benchmark_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format a Markdown table of each benchmark's headline and, in brackets, retention, one line per row.

    Shares are in per cent; a headline with another full score, such as MME's 2800, stays as it is.
    """
    labels = list(rows[0]["benchmarks"])
    cells = [
        [row["method"], str(row["token_budget"]), row["region_source"]]
        + [_cell(row["benchmarks"][label]) for label in labels]
        for row in rows
    ]
    return markdown_table(["method", "budget", "regions", *labels], cells)


def _cell(result: Mapping[str, Any]) -> str:
    score = f"{100 * result['score']:.1f}" if result["full_score"] == 1 else f"{result['score']:.1f}"
    return score if result["retention"] is None else f"{score} ({100 * result['retention']:.1f})"
