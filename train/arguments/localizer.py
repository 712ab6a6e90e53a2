"""The keys of a localizer's training configuration."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data_prep.common.fill import key

from .model import ModelArguments
from .training import PlcTrainingArguments


@dataclass
class LocalizerModelArguments(ModelArguments):
    """Extend `ModelArguments` by the image sizes of Qwen2-VL; its other processor and compressor keys are LLaVA's."""

    model: str = key(
        "Qwen/Qwen2-VL-2B-Instruct",
        "The folder or Hub name of a Qwen2-VL, of a LLaVA in llava-hf format, or of a checkpoint of either.",
    )
    min_pixels: int | None = key(
        None, "The fewest pixels to which Qwen2-VL's processor resizes an image; null: the model's own number."
    )
    max_pixels: int | None = key(
        None, "The most pixels to which it resizes an image, 784 per token; null: the model's own number."
    )
    full: bool = key(
        False, "Whether all weights of the language model and its head train, at learning_rate; lora must be null then."
    )

    def mistakes(self) -> Iterator[str]:
        yield from super().mistakes()
        if self.full and self.lora is not None:
            yield "full: lora must be null: the weights train, or an adapter beside them"

    def processor(self) -> dict[str, Any]:
        return super().processor() | self._given(("min_pixels", "max_pixels"))


@dataclass
class LocalizerTrainingArguments(PlcTrainingArguments):
    """Change `PlcTrainingArguments`: the projector stays frozen unless it is given a learning rate."""

    projector_learning_rate: float = key(
        0.0, "The peak learning rate of LLaVA's projector or Qwen2-VL's vision merger; 0: it stays frozen."
    )
