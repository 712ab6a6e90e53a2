"""Score answers: one file per benchmark's rule, `METRICS` by name, and intervals of scores."""

from .intervals import Z95, Estimate, average, estimate, headline_interval, retention, share_interval, wilson_interval
from .matching import accuracy_by_group, exact_match, normalize_answer
from .rows import ScoredRow
from .table import METRICS, Metric

__all__ = [
    "METRICS",
    "Z95",
    "Estimate",
    "Metric",
    "ScoredRow",
    "accuracy_by_group",
    "average",
    "estimate",
    "exact_match",
    "headline_interval",
    "normalize_answer",
    "retention",
    "share_interval",
    "wilson_interval",
]
