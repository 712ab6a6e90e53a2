"""Training with real regions: boxes a little off, the localizer's own, or none, as PLC meets them in use.

    sampler ─► (epoch, number) ─► RegionNoiseData ─► rows with other regions ─► collator
                                       └─ draws by (seed, sample id, epoch)

Every time a sample is read, one of three things becomes its region:

    global_probability       none: the whole image
    localizer_probability    what the localizer predicted for the question, as it is
    otherwise                the annotated region, its box jittered by `region_jitter` = j

A jittered box is scaled, then each of its four sides moves by itself:

    +----------------+  annotated, w x h          sides:    both times (1 + j) ** u, u in [-1, 1]: w', h'
    |   +--------+   |                            x1, x2:   move by up to j/2 * w', each for itself
    |   | ·····  |   |  <- x1' in this range      y1, y2:   move by up to j/2 * h'
    |   +--------+   |
    +----------------+                            then it is clipped to the image

As j < 1, the centre of the annotated box stays inside. The epoch comes with the number of the sample, so a draw depends
neither on the process, nor on the data loader's workers, nor on where a run was resumed. Evaluation never comes here.
How regions are drawn is this project's design, not the CROP paper's.
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

LOCATED = "localizer_region"  # column: null where nothing was predicted, [] for the whole image, else a box in pixels

Row = dict[str, Any]


@dataclass(frozen=True)
class RegionNoise:
    """How a sample's region is drawn. All zero: as annotated.

    Args:
        seed: of the draws, with the sample's id and the epoch.
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
            raise ConfigError("localizer_probability and global_probability: add up to more than 1")

    @property
    def is_off(self) -> bool:
        return not (self.jitter or self.localizer or self.none)

    def apply(self, row: Mapping[str, Any], epoch: int) -> Row:
        """The row with the region of this epoch; the same for the same seed, sample id and epoch."""
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
    """The box scaled and its sides moved, as drawn at the head of this file, clipped to an image of that size."""
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
    """Samples, or packed rows of them, under `RegionNoise`; an item is asked for by (epoch, number).

    Args:
        data: what it is about; stays as it is.
        noise: how regions are drawn.
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
    """The numbers of `sampler`, each with the epoch that `epoch` told when the iteration started."""

    def __init__(self, sampler: Sampler[int], epoch: Callable[[], int]) -> None:
        self.sampler, self.epoch = sampler, epoch

    def __len__(self) -> int:
        return len(self.sampler)  # type: ignore[arg-type]  # of every sampler that a training gets

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch()
        return ((epoch, number) for number in self.sampler)


def add_located(samples: datasets.Dataset, sidecars: Sequence[str]) -> datasets.Dataset:
    """The samples with a column `LOCATED` from sidecars of the localizer's own predictions (`data_prep.localize`).

    The data's fingerprint then covers the predictions: a run does not go on with others.

    Raises:
        DataError: a sidecar that does not read, holds none of the samples, or tells another size of an image.
    """
    keys, widths, heights = samples["sample_id"][:], samples["width"][:], samples["height"][:]
    located: list[list[float] | None] = [None] * len(samples)
    for sidecar in sidecars:
        table, matched = read_regions(sidecar), 0
        for number, key in enumerate(keys):
            found = table.get(key)
            if found is None:
                continue
            matched += 1
            if widths[number] is None:
                widths[number], heights[number] = found.width, found.height
            elif (found.width, found.height) != (widths[number], heights[number]):
                size = f"{found.width}x{found.height}, its annotation {widths[number]}x{heights[number]}"
                raise DataError(f"localizer_regions: {sidecar}: sample {key}: the image is {size}")
            region = found.region
            located[number] = [] if region is None else list(sanitize_box(region, found.width, found.height))
        if not matched:
            raise DataError(f"localizer_regions: {sidecar}: holds none of the questions of train_data")
    features = datasets.Features({LOCATED: datasets.List(datasets.Value("float64"))})
    for name in ("width", "height"):
        features[name] = samples.features[name]
    columns = datasets.Dataset.from_dict({LOCATED: located, "width": widths, "height": heights}, features=features)
    return datasets.concatenate_datasets([samples.remove_columns(["width", "height"]), columns], axis=1)
