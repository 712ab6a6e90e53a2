"""Define published training-free methods that choose visual tokens before the LLM, by their own rules.

    model = CropLlavaForConditionalGeneration.from_pretrained(checkpoint, compressor_type="random", token_budget=64)
    with VisionZip().applied(model):
        model.generate(**inputs)

They read the image alone: question and region change nothing, and `prune` cannot tell which of their tokens are of the
region. The method's tokens replace the random patches, so that processor, budget, projector and LLM are those of every
other row of a table.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from crop_model.compressor_base import Compressor
from crop_model.configuration_crop_llava import CropLlavaConfig
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration

from .base import TrainingFreeMethod


@dataclass(frozen=True)
class BeforeLLM(TrainingFreeMethod):
    """Replace the tokens of a `random` compressor by those that a subclass chooses."""

    reads_region = False
    replaces = "random"

    def label(self, config: CropLlavaConfig) -> str:
        return self.name

    def check_model(self, model: CropLlavaForConditionalGeneration) -> None:
        """Refuse a model that the method does not fit, by a ValueError."""
        if model.config.compressor_type != self.replaces:
            raise ValueError(
                f"compressor_type: {self.name} takes the place of `{self.replaces}`, not of "
                f"{model.config.compressor_type!r}"
            )

    def choose(self, model: CropLlavaForConditionalGeneration, tower: Any, features: Tensor) -> Tensor:
        """Return the tokens: (B, T, D).

        Args:
            model: whose images these are.
            tower: the vision tower's output, with hidden states.
            features: (B, N, D), the compressor's input.
        """
        raise NotImplementedError

    @contextmanager
    def applied(self, model: CropLlavaForConditionalGeneration) -> Iterator[None]:
        self.check_model(model)
        outputs: list[BaseModelOutputWithPooling] = []

        def read_tower(tower: Any, args: tuple, output: BaseModelOutputWithPooling) -> None:
            outputs[:] = [output]  # as a whole: later hooks may change it

        def replace_tokens(compressor: Compressor, args: tuple[Tensor, Tensor], _: Tensor):
            features, _ = args  # (B, N, D)
            return self.choose(model, outputs[0], features)

        with (
            model.model.vision_tower.register_forward_hook(read_tower),
            model.model.compressor.register_forward_hook(replace_tokens),
        ):
            yield
