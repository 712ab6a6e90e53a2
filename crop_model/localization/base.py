"""What every localizer has in common: its call, and what it returns."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from PIL import Image

from crop_model.regions import Box, Cells

T = TypeVar("T")


@dataclass(frozen=True)
class LocatedRegion:
    """What a localizer says of one question.

    Args:
        region: in pixels of the image; None: the whole image, said so or for want of confidence.
        cells: (xmin, ymin, xmax, ymax), inclusive, of the 8x8 grid over the image.
        confidence: the probability of the four indices, each among those that were possible; 0 where the model's
            numbers are not finite.
    """

    region: Box | None
    cells: Cells
    confidence: float


def in_batches(
    call: Callable[[Sequence[Image.Image], Sequence[str]], list[T]],
    images: Sequence[Image.Image],
    questions: Sequence[str],
    batch_size: int,
) -> list[T]:
    """What `call` makes of so many at a time, one after the other. ValueError where the numbers of both differ."""
    if len(images) != len(questions):
        raise ValueError(f"questions: {len(questions)} for {len(images)} images")
    made: list[T] = []
    for start in range(0, len(images), batch_size):
        batch = slice(start, start + batch_size)
        made += call(images[batch], questions[batch])
    return made


class RegionLocalizer(Protocol):
    """What finds regions: `Localizer`, `ZeroShotLocalizer`, or anything with this call."""

    def predict(
        self, images: Sequence[Image.Image], questions: Sequence[str], batch_size: int = 8
    ) -> list[LocatedRegion]:
        """One region a question, of the image at its place."""
