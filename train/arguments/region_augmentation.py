"""The keys of a training that choose its regions."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.common.errors import ConfigError
from train.data.region_augmentation import RegionNoise


@dataclass(kw_only=True)
class RegionNoiseArguments:
    """The keys of a training that choose its regions."""

    region_jitter: float = field(
        default=0.0,
        metadata={
            "help": "Boxes of train_data are scaled by up to 1 + this number, and each side moves by up to half of it "
            "times the box's, anew every epoch; below 1. 0: as annotated."
        },
    )
    localizer_regions: list[str] = field(
        default_factory=list,
        metadata={"help": "Sidecars of the localizer's own predictions for train_data (data_prep.localize rows=all)."},
    )
    localizer_probability: float = field(
        default=0.0, metadata={"help": "How often a sample is shown with the region that the localizer predicted."}
    )
    global_probability: float = field(
        default=0.0, metadata={"help": "How often a sample is shown without a region: the whole image."}
    )

    def region_mistakes(self) -> Iterator[str]:
        """Yield a line for a value out of its range and for each missing sidecar."""
        try:
            self.region_noise(seed=0)
        except ConfigError as error:
            yield str(error)
        for sidecar in self.localizer_regions:
            if not Path(sidecar).is_dir():
                yield f"localizer_regions: no such folder: {sidecar}"
        if bool(self.localizer_regions) != bool(self.localizer_probability):
            yield "localizer_regions and localizer_probability go together"

    def region_noise(self, seed: int) -> "RegionNoise":
        """How training draws its regions."""
        return RegionNoise(seed, self.region_jitter, self.localizer_probability, self.global_probability)
