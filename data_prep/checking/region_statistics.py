"""Summarise a region sidecar, read in batches: counts, areas, positions, and a choice of rows to look at."""

import heapq
import math
from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain, pairwise, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from crop_model.regions import REGION_GRID, box_to_grid
from data_prep.common.errors import DataError
from data_prep.files.streams import json_lines
from data_prep.schema.sample import REJECTED, sidecar_batches, value_counts

from .findings import hash64

AREA_BINS = (0.0, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)  # edges, in % of the image


@dataclass
class RegionStatistics:
    """Hold the statistics of one sidecar. Areas (% of the image) and `cover` are over the rows that have a region."""

    source: str = ""
    rows: int = 0
    methods: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    areas: array = field(default_factory=lambda: array("f"))
    cover: np.ndarray = field(default_factory=lambda: np.zeros(REGION_GRID, np.int64))  # regions on each cell
    chosen: list[dict[str, Any]] = field(default_factory=list)

    @property
    def mean_area(self) -> float:
        return float(np.mean(self.areas)) if self.areas else math.nan

    @property
    def median_area(self) -> float:
        return float(np.median(self.areas)) if self.areas else math.nan

    @property
    def above_half(self) -> float:
        """Compute the share of the regions, in %, that cover more than half of the image."""
        return 100 * float(np.mean(np.array(self.areas) > 50)) if self.areas else math.nan

    def bins(self) -> list[tuple[float, float, int, float]]:
        """Compute the histogram of areas: (from, to, regions, share of the largest bin)."""
        counts, _ = np.histogram(np.array(self.areas), AREA_BINS)
        top = max(int(counts.max()), 1)
        bins = zip(pairwise(AREA_BINS), counts.tolist(), strict=True)
        return [(low, high, count, count / top) for (low, high), count in bins]

    def cover_shares(self) -> list[list[float]]:
        """Compute how many of the regions touch each cell of the grid, in %."""
        return (100 * self.cover / max(len(self.areas), 1)).tolist()

    def add(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch."""
        self.rows += batch.num_rows
        self.methods.update(value_counts(batch.column("method")))
        self.flags.update(value_counts(batch.column("flags").flatten()))
        with_region = batch.filter(batch.column("region").is_valid())
        columns = (with_region.column(name).to_pylist() for name in ("region", "width", "height"))
        for (x1, y1, x2, y2), width, height in zip(*columns, strict=True):
            unit = x1 / width, y1 / height, x2 / width, y2 / height
            self.areas.append(min(100 * (unit[2] - unit[0]) * (unit[3] - unit[1]), 100.0))  # float32 may exceed it
            xmin, ymin, xmax, ymax = box_to_grid(unit)
            self.cover[ymin : ymax + 1, xmin : xmax + 1] += 1


class _Choice:
    """Choose rows evenly over the methods: the same rows for the same seed, in whatever order they come."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self.by_method: dict[str, list[tuple[int, dict[str, Any]]]] = {}

    def add(self, batch: pa.RecordBatch) -> None:
        ids, methods = batch.column("sample_id").to_pylist(), batch.column("method").to_pylist()
        ranks = [(hash64(str(self.seed), key), row) for row, key in enumerate(ids)]
        for method in set(methods):
            best = heapq.nsmallest(self.count, (rank for rank in ranks if methods[rank[1]] == method))
            rows = [(rank, batch.slice(row, 1).to_pylist()[0]) for rank, row in best]
            merged = [*self.by_method.get(method, []), *rows]
            self.by_method[method] = heapq.nsmallest(self.count, merged, key=lambda item: item[0])

    def rows(self) -> list[dict[str, Any]]:
        """Return one row of each method in turn, then the next of each."""
        turns = zip_longest(*([row for _, row in rows] for _, rows in sorted(self.by_method.items())))
        return [row for row in chain.from_iterable(turns) if row is not None][: self.count]


def read_statistics(folder: Path, samples: int, seed: int) -> RegionStatistics:
    """Read a sidecar and the rejections beside it.

    Args:
        samples: number of rows to choose.
        seed: seed of the choice.

    Raises:
        DataError: the sidecar cannot be read, or has a region that is not in its image.
    """
    statistics, choice = RegionStatistics(), _Choice(samples, seed)
    for batch in sidecar_batches(folder):
        try:
            statistics.add(batch)
        except (ValueError, ZeroDivisionError, TypeError) as error:  # not finite, an image of no size, a null
            raise DataError(f"{folder}: an impossible region (data_prep.validate reports which): {error}") from None
        choice.add(batch)
        statistics.source = statistics.source or batch.column("source")[0].as_py()
    statistics.chosen = choice.rows()
    if (folder / REJECTED).is_file():
        statistics.rejected.update(line.load()["reason"] for line in json_lines(folder / REJECTED))
    return statistics
