"""The keys of a localizer's training configuration."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .model import ModelArguments
from .training import PlcTrainingArguments


@dataclass
class LocalizerModelArguments(ModelArguments):
    """`ModelArguments`, and the sizes of Qwen2-VL's images; its other keys are of LLaVA alone."""

    model: str = field(
        default="Qwen/Qwen2-VL-2B-Instruct",
        metadata={"help": "Folder or Hub name of a Qwen2-VL, a LLaVA in llava-hf format, or a checkpoint of either."},
    )
    min_pixels: int | None = field(
        default=None,
        metadata={"help": "Of Qwen2-VL: an image is resized to at least so many; null: as the model says."},
    )
    max_pixels: int | None = field(
        default=None, metadata={"help": "Of Qwen2-VL: an image is resized to at most so many, 784 a token; null: same."}
    )
    full: bool = field(
        default=False,
        metadata={"help": "Train all weights of the language model and its head, at learning_rate; lora must be null."},
    )

    def mistakes(self) -> Iterator[str]:
        yield from super().mistakes()
        if self.full and self.lora is not None:
            yield "full: lora must be null: the weights train, or an adapter beside them"

    def processor(self) -> dict[str, Any]:
        """The processor's own keys that are set, as its `from_pretrained` takes them."""
        return super().processor() | self._given(("min_pixels", "max_pixels"))


@dataclass
class LocalizerTrainingArguments(PlcTrainingArguments):
    """`PlcTrainingArguments` with a projector that stays frozen unless asked for."""

    projector_learning_rate: float = field(
        default=0.0,
        metadata={"help": "Peak learning rate of LLaVA's projector or Qwen2-VL's vision merger; 0: it stays frozen."},
    )
