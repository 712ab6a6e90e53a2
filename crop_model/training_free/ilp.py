"""ILP and FastV: methods that prune visual tokens inside the LLM, as rows of an evaluation.

ILP, CROP's second stage, drops most tokens outside the region. FastV (Chen et al., "An Image is Worth 1/2 Tokens After
Layer 2", ECCV 2024, arXiv 2403.06764) keeps the tokens that the last token of the prompt attends to most.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from crop_model.configuration_crop_llava import CropLlavaConfig
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration

from .base import TrainingFreeMethod
from .inside_llm import PruningConfig, Rest, budget_for_mean, prune

Convention = Literal["after_layer", "mean"]
CHOICES = {"rest": get_args(Rest), "convention": get_args(Convention)}


@dataclass(frozen=True)
class ILP(TrainingFreeMethod):
    """Keep the region, and of the rest what `rest` says.

    Args:
        pruned_tokens: visual tokens per image after pruning, counted as `convention` says.
        layer, rest: as in `PruningConfig`.
        convention: whether `pruned_tokens` counts tokens after layer K, or is their mean over all layers.
    """

    pruned_tokens: int
    layer: int = 2
    convention: Convention = "after_layer"
    rest: Rest = "thinned"

    name = "ilp"

    @classmethod
    def check_key(cls, key: str, value: Any) -> None:
        if key in CHOICES and value not in CHOICES[key]:
            raise ValueError(f"{key}: {value!r} is none of {', '.join(CHOICES[key])}")
        if key not in CHOICES and (type(value) is not int or value < 1):
            raise ValueError(f"{key}: expected a whole number of at least 1, got {value!r}")

    def label(self, config: CropLlavaConfig) -> str:
        """Return the compressor and the method with its layer, as in `region_ratio+ilp_thinned_k2`."""
        compressor = "" if config.compressor_type == "none" else f"{config.compressor_type}+"
        rest = f"_{self.rest}" if "rest" in self.row_keys() else ""
        return f"{compressor}{self.name}{rest}_k{self.layer}"

    def pruning(self, config: CropLlavaConfig) -> PruningConfig:
        layers = config.text_config.num_hidden_layers
        if self.layer >= layers:
            raise ValueError(f"layer: {self.layer} is outside 1..{layers - 1}, the layers that can be pruned")
        if self.pruned_tokens > config.token_budget:
            raise ValueError(f"pruned_tokens: {self.pruned_tokens} is above {config.token_budget}, all there are")
        after = self.pruned_tokens
        if self.convention == "mean":
            after = budget_for_mean(self.pruned_tokens, self.layer, config.token_budget, layers)
        return PruningConfig(self.layer, after, self.rest)

    def applied(self, model: CropLlavaForConditionalGeneration) -> AbstractContextManager[None]:
        return prune(model, self.pruning(model.config))


@dataclass(frozen=True)
class FastV(ILP):
    """Prune by attention, whatever the region."""

    rest: Rest = field(default="attention", init=False)

    name = "fastv"
    reads_region = False
