"""Describe LLaVA with a compressor between vision tower and projector, from a plain LLaVA or our own checkpoint."""

from typing import Any, ClassVar

from transformers import LlavaConfig

from crop_model.configuration_crop_llava import CropLlavaConfig
from crop_model.cost.localizer import LocalizationMacs, LocalizerShape
from crop_model.cost.model import ModelShape
from crop_model.localization.grid_box import GridBoxProcessor
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.processing_crop_llava import CropLlavaProcessor

from .base import Backbone


class Llava(Backbone):
    """Describe LLaVA 1.5 in llava-hf format and `CropLlava` checkpoints."""

    title = "LLaVA"
    model_types = (CropLlavaConfig.model_type, LlavaConfig.model_type)
    model_class = CropLlavaForConditionalGeneration
    processor_class = CropLlavaProcessor
    compresses = True
    modules: ClassVar = {
        "compressor": "compressor",
        "projector": "multi_modal_projector",
        "vision_tower": "vision_tower",
    }
    unread_keys: ClassVar = {"min_pixels": None, "max_pixels": None}  # every image has the same size
    auto_classes: ClassVar = {
        CropLlavaForConditionalGeneration: "AutoModelForImageTextToText",
        CropLlavaConfig: "AutoConfig",
        CropLlavaProcessor: "AutoProcessor",
    }

    def model_shape(self, config: CropLlavaConfig) -> ModelShape:
        """Return the sizes that the cost formulas need."""
        return ModelShape.from_config(config)

    def localizer_macs(self, config: CropLlavaConfig, tokenizer: Any, text_tokens: int) -> LocalizationMacs:
        """Count the MACs to localize a question of `text_tokens` tokens."""
        return LocalizerShape.from_llava(config).localize(
            text_tokens, GridBoxProcessor(tokenizer, prompt_length=0).positions
        )
