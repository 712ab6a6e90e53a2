"""Define what every localizer has in common: how it is loaded, its call, and what it returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, TypeVar

import torch
from PIL import Image

from crop_model.regions import Box, Cells

T = TypeVar("T")
PIXEL_KEYS = ("min_pixels", "max_pixels")


@dataclass(frozen=True)
class LocatedRegion:
    """Hold the region that a localizer returns for one question.

    Args:
        region: in pixels of the image; None: the whole image, by the model's answer or for want of confidence.
        cells: (xmin, ymin, xmax, ymax), inclusive, of the 8x8 grid over the image.
        confidence: of a model that writes cells, the probability of the four indices, each among those that were
            possible, and 0 if its numbers are not finite; of a detector, its best score.
    """

    region: Box | None
    cells: Cells
    confidence: float


class RegionLocalizer(Protocol):
    """Define the call of a localizer: `Localizer`, `ZeroShotLocalizer`, or a class of your own."""

    def predict(
        self, images: Sequence[Image.Image], questions: Sequence[str], batch_size: int = 8
    ) -> list[LocatedRegion]:
        """Return one region per question, each in the image of the same index. ValueError if their numbers differ."""
        ...


class ModelLocalizer(RegionLocalizer):
    """Put a model and its processor behind the call of `RegionLocalizer`.

    Args:
        model: on its device, in eval mode.
        processor: the model's.
        threshold: a region with less confidence is not trusted: the whole image instead.
    """

    auto_class: ClassVar[Any]  # that loads the model
    trust_remote_code: ClassVar[bool] = False

    def __init__(self, model: Any, processor: Any, threshold: float = 0.0):
        self.model, self.processor, self.threshold = model, processor, threshold

    @classmethod
    def from_pretrained(
        cls, name: str, *, dtype: torch.dtype | str = "auto", device: torch.device | str = "cpu", **options: Any
    ) -> Self:
        """Load model and processor from a folder or Hub name by the Auto classes.

        Args:
            options: min_pixels and max_pixels, for models whose images vary in size; further ones are the class's.

        Raises:
            ValueError: a model that the class does not know, before weights are read, or options that do not fit it.
        """
        processor = cls.load_processor(name, **{key: options.pop(key) for key in PIXEL_KEYS if key in options})
        model = cls.auto_class.from_pretrained(name, dtype=dtype, trust_remote_code=cls.trust_remote_code)
        return cls(model.to(device).eval(), processor, **options)

    @classmethod
    def load_processor(cls, name: str, **pixels: int) -> Any:
        """Load the processor of a model that the class knows."""
        raise NotImplementedError

    def to(self, device: torch.device | str) -> Self:
        """Move the model to a device."""
        self.model.to(device)
        return self

    def predict(
        self, images: Sequence[Image.Image], questions: Sequence[str], batch_size: int = 8
    ) -> list[LocatedRegion]:
        return in_batches(self._predict, images, questions, batch_size)

    def _predict(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[LocatedRegion]:
        raise NotImplementedError


def in_batches(
    call: Callable[[Sequence[Image.Image], Sequence[str]], list[T]],
    images: Sequence[Image.Image],
    questions: Sequence[str],
    batch_size: int,
) -> list[T]:
    """Call with `batch_size` images and questions at a time and join the results. ValueError if the numbers differ."""
    if len(images) != len(questions):
        raise ValueError(f"questions: {len(questions)} for {len(images)} images")
    results: list[T] = []
    for start in range(0, len(images), batch_size):
        batch = slice(start, start + batch_size)
        results += call(images[batch], questions[batch])
    return results
