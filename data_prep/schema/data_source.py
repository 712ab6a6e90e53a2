"""Hold a configuration's entry for one data set: its annotations, images and regions."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import StrictFloat

from data_prep.common.fill import Checked, key


def existing_paths(pattern: str) -> list[Path]:
    """Return the file or folder of that name, or the files that its last component matches as a glob."""
    path = Path(pattern)
    return [path] if path.exists() else sorted(path.parent.glob(path.name))


@dataclass(frozen=True)
class DataSource(Checked):
    """Hold one data set: its annotations, the folder of their images, and the sidecar with their regions.

    A `weight` of 2 shows every sample twice per epoch, 0.5 a fixed half of them.

    Raises:
        ConfigError: a path that does not exist, a weight not above 0.
    """

    annotations: str
    image_root: str | None = None
    regions: str | None = None
    weight: StrictFloat = 1.0

    def mistakes(self) -> Iterator[str]:
        for name in ("annotations", "image_root", "regions"):
            path = getattr(self, name)
            if path is not None and not existing_paths(path):
                yield f"{name}: no such file or folder: {path}"
        if self.weight <= 0:
            yield f"weight: expected a number above 0, got {self.weight!r}"


@dataclass(frozen=True)
class DataLists(Checked):
    """Hold the data that a training configuration names."""

    train_data: list[DataSource] = key(
        list, "A list of {annotations, image_root, regions, weight}; the last three may be left out."
    )
    eval_data: list[DataSource] = key(list, "Like train_data; the held-out data.")

    def mistakes(self) -> Iterator[str]:
        if not self.train_data and not self.eval_data:
            yield "train_data: names no data"
