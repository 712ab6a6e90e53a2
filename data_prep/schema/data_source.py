"""Hold a configuration's entry for one data set: its annotations, images and regions."""

import argparse
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.common.errors import ConfigError


def existing_paths(pattern: str) -> list[Path]:
    """Return the file or folder of that name, or the files that its last component matches as a glob."""
    path = Path(pattern)
    return [path] if path.exists() else sorted(path.parent.glob(path.name))


@dataclass(frozen=True)
class DataSource:
    """Hold one data set: its annotations, the folder of their images, and the sidecar with their regions.

    Given one text that starts with a brace, it is filled from that JSON mapping. A `weight` of 2 shows every sample
    twice per epoch, 0.5 a fixed half of them.

    Raises:
        argparse.ArgumentTypeError: an unknown or missing key, a path that does not exist, a weight not above 0.
    """

    annotations: str
    image_root: str | None = None
    regions: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.annotations.startswith("{"):
            for name, value in self._from_json(self.annotations).items():
                object.__setattr__(self, name, value)
        for name in ("annotations", "image_root", "regions"):
            path = getattr(self, name)
            if path is not None and not existing_paths(path):
                raise argparse.ArgumentTypeError(f"{name}: no such file or folder: {path}")
        if isinstance(self.weight, bool) or not isinstance(self.weight, int | float) or self.weight <= 0:
            raise argparse.ArgumentTypeError(f"weight: expected a number above 0, got {self.weight!r}")

    @classmethod
    def _from_json(cls, text: str) -> dict[str, Any]:
        mapping = json.loads(text)
        known = [item.name for item in dataclasses.fields(cls)]
        if "annotations" not in mapping or set(mapping) - set(known):
            raise argparse.ArgumentTypeError(f"expected keys of {known} with annotations, got {list(mapping)}")
        return mapping


@dataclass(frozen=True)
class DataLists:
    """Hold the data that a training configuration names."""

    train_data: list[DataSource] = field(
        default_factory=list,
        metadata={"help": "List of {annotations, image_root, regions, weight}; the last three may be left out."},
    )
    eval_data: list[DataSource] = field(default_factory=list, metadata={"help": "As train_data; held out."})

    def __post_init__(self) -> None:
        if not self.train_data and not self.eval_data:
            raise ConfigError("train_data: names no data")
