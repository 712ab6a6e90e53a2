"""Train with realistic regions: boxes slightly off, the localizer's own, or none, as PLC meets them at inference.

    sampler ─► (epoch, number) ─► RegionNoiseData ─► rows with other regions ─► collator
                                       └─ draws by (seed, sample id, epoch)

Every time a sample is read, its region is one of three:

    global_probability       none: the whole image
    localizer_probability    the localizer's prediction for the question, unchanged
    otherwise                the annotated region, its box jittered by `region_jitter` = j

A jittered box is scaled, then each of its four sides moves independently:

    +----------------+  annotated, w x h          sides:    both times (1 + j) ** u, u in [-1, 1]: w', h'
    |   +--------+   |                            x1, x2:   move by up to j/2 * w', independently
    |   | ·····  |   |  <- x1' in this range      y1, y2:   move by up to j/2 * h'
    |   +--------+   |
    +----------------+                            then it is clipped to the image

As j < 1, the centre of the annotated box stays inside. The epoch comes with the number of the sample, so that a draw
depends neither on the process, nor on the data loader's workers, nor on where a run was resumed. Evaluation uses
none of this. The way regions are drawn is this project's design, not the CROP paper's.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from torch.utils.data import Dataset, Sampler

from crop_model.regions import Box, sanitize_box
from data_prep.common.errors import ConfigError, DataError
from data_prep.schema.sample import read_regions

from .packing import PackedRows

LOCATED = "localizer_region"  # column: null without a prediction, [] for the whole image, else a box in pixels

Row = dict[str, Any]


@dataclass(frozen=True)
class RegionNoise:
    """Draw a sample's region; with all values 0, it stays as annotated.

    Args:
        seed: seed of the draws, with the sample's id and the epoch.
        jitter: j of the box, at least 0 and below 1.
        localizer: probability of the localizer's own prediction, for samples that have one.
        none: probability of the whole image.

    Raises:
        ConfigError: a value out of its range, or probabilities that add up to more than 1.
    """

    seed: int
    jitter: float = 0.0
    localizer: float = 0.0
    none: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.jitter < 1:
            raise ConfigError(f"region_jitter: expected a number from 0 to below 1, got {self.jitter}")
        for name, value in (("localizer_probability", self.localizer), ("global_probability", self.none)):
            if not 0 <= value <= 1:
                raise ConfigError(f"{name}: expected a probability, got {value}")
        if self.localizer + self.none > 1:
            raise ConfigError("localizer_probability: adds up with global_probability to more than 1")

    @property
    def is_off(self) -> bool:
        return not (self.jitter or self.localizer or self.none)

    def apply(self, row: Mapping[str, Any], epoch: int) -> Row:
        """Return the row with its region for this epoch, a function of seed, sample id and epoch."""
        row = dict(row)
        located = row.pop(LOCATED, None)
        draw = random.Random(f"{self.seed}/{row['sample_id']}/{epoch}")
        kind = draw.random()
        if kind < self.none:
            row["region"] = None
        elif kind < self.none + self.localizer and located is not None:
            row["region"] = located or None
        elif row["region"] is not None:
            box = jitter_box(tuple(row["region"]), row["width"], row["height"], self.jitter, draw)
            row["region"] = list(box)
        return row


def jitter_box(box: Box, width: int, height: int, jitter: float, draw: random.Random) -> Box:
    """Scale the box and move its sides, as shown at the top of this file, and clip it to an image of that size."""
    if not jitter:
        return box
    x1, y1, x2, y2 = box
    scale = (1 + jitter) ** draw.uniform(-1, 1)
    half_width, half_height = scale * (x2 - x1) / 2, scale * (y2 - y1) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    moves = [draw.uniform(-jitter, jitter) for _ in range(4)]
    moved = (
        x + (moves[0] - 1) * half_width,
        y + (moves[1] - 1) * half_height,
        x + (moves[2] + 1) * half_width,
        y + (moves[3] + 1) * half_height,
    )
    return sanitize_box(moved, width, height)


class RegionNoiseData(Dataset):
    """Apply `RegionNoise` to samples or packed rows of them; an item is indexed by (epoch, number).

    Args:
        data: the samples or rows, which stay unchanged.
        noise: draws the regions.
    """

    def __init__(self, data: datasets.Dataset | PackedRows, noise: RegionNoise) -> None:
        self.data, self.noise = data, noise

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: tuple[int, int]) -> Row | list[Row]:
        epoch, number = key
        item = self.data[number]
        if isinstance(item, list):
            return [self.noise.apply(row, epoch) for row in item]
        return self.noise.apply(item, epoch)


class WithEpoch(Sampler[tuple[int, int]]):
    """Yield the numbers of `sampler`, each with the epoch that `epoch` returned when the iteration started."""

    def __init__(self, sampler: Sampler[int], epoch: Callable[[], int]) -> None:
        self.sampler, self.epoch = sampler, epoch

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]  # every sampler of a training has a length

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch()
        return ((epoch, number) for number in self.sampler)


def add_located(samples: datasets.Dataset, sidecars: Sequence[str]) -> datasets.Dataset:
    """Add a column `LOCATED` from sidecars of the localizer's own predictions (`data_prep.localize`).

    The data's fingerprint then covers the predictions, so that a run does not resume with others.

    Raises:
        DataError: a sidecar cannot be read, holds none of the samples, or states another size of an image.
    """
    keys, widths, heights = samples["sample_id"][:], samples["width"][:], samples["height"][:]
    located: list[list[float] | None] = [None] * len(samples)
    for sidecar in sidecars:
        table, matched = read_regions(sidecar), 0
        for number, key in enumerate(keys):
            row = table.get(key)
            if row is None:
                continue
            matched += 1
            if widths[number] is None:
                widths[number], heights[number] = row.width, row.height
            elif (row.width, row.height) != (widths[number], heights[number]):
                size = f"{row.width}x{row.height}, its annotation {widths[number]}x{heights[number]}"
                raise DataError(f"localizer_regions: {sidecar}: sample {key}: the image is {size}")
            located[number] = [] if row.region is None else list(sanitize_box(row.region, row.width, row.height))
        if not matched:
            raise DataError(f"localizer_regions: {sidecar}: holds none of the questions of train_data")
    features = datasets.Features({LOCATED: datasets.List(datasets.Value("float64"))})
    for name in ("width", "height"):
        features[name] = samples.features[name]
    columns = datasets.Dataset.from_dict({LOCATED: located, "width": widths, "height": heights}, features=features)
    return datasets.concatenate_datasets([samples.remove_columns(["width", "height"]), columns], axis=1)
