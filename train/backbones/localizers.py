"""Load, cost and train localizers of any family."""

from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import Qwen2VLForConditionalGeneration

from crop_model.configuration_crop_llava import CropLlavaConfig
from crop_model.cost.localizer import LocalizerShape
from crop_model.localization.base import RegionLocalizer
from crop_model.localization.detected import DETECTORS, ZeroShotLocalizer
from crop_model.localization.generated import Localizer
from crop_model.localization.grid_box import GridBoxProcessor
from data_prep.common.errors import ConfigError, one_line
from train.arguments.localizer import LocalizerModelArguments
from train.arguments.training import PlcTrainingArguments
from train.checkpoints.loading import build_trained, stored_model_type

from . import qwen2_vl
from .base import Parts
from .llava import llava_parts, load_config, load_merged, load_processor

# Keys whose values a Qwen2-VL would not read, and what they have to be.
OF_LLAVA_ALONE = {
    **dict.fromkeys(("compressor_type", "token_budget", "region_ratio", "compressor_num_attention_heads"), None),
    **dict.fromkeys(("frame", "region_grid", "region_scale", "region_min_side", "quantization"), None),
    **dict.fromkeys(("region_jitter", "localizer_probability", "global_probability", "picture_steps"), 0),
    **{"pack_length": None, "on_bad_sample": "raise"},
}


def localizer_parts(model_arguments: LocalizerModelArguments, args: PlcTrainingArguments) -> Parts:
    """Of whatever the model is.

    Raises:
        ConfigError: keys of the other kind of model; nothing that trains.
    """
    if model_arguments.lora is None and not model_arguments.full and not args.projector_learning_rate:
        raise ConfigError("lora: nothing trains; give lora, full or projector_learning_rate")
    if stored_model_type(model_arguments.model) == qwen2_vl.MODEL_TYPE:
        parts = _qwen2_vl_parts(model_arguments, args)
    elif pixels := model_arguments.pixels():
        raise ConfigError(f"{min(pixels)}: of Qwen2-VL alone, whose images vary in size")
    else:
        parts = llava_parts(model_arguments, args)

    def build() -> nn.Module:
        model = parts.build()
        if model_arguments.full:
            for part in ("model.language_model", "lm_head"):
                model.get_submodule(part).requires_grad_(True)
        return model

    return Parts(parts.processor, parts.collator, build)


def _qwen2_vl_parts(model_arguments: LocalizerModelArguments, args: PlcTrainingArguments) -> Parts:
    for key, neutral in OF_LLAVA_ALONE.items():
        if getattr(model_arguments, key, neutral) != neutral or getattr(args, key, neutral) != neutral:
            raise ConfigError(f"{key}: not of a Qwen2-VL; leave it out")

    def build() -> Qwen2VLForConditionalGeneration | PeftModel:
        return build_trained(
            model_arguments.model,
            Qwen2VLForConditionalGeneration,
            [qwen2_vl.MERGER] if args.projector_learning_rate else [],
            model_arguments.lora_config(),
            torch.bfloat16 if args.bf16 else torch.float32,
            args.seed,
            **model_arguments.loading(),
        )

    pixels: dict[str, Any] = model_arguments.pixels()
    return Parts(qwen2_vl.load_processor(model_arguments.model, **pixels), qwen2_vl.Qwen2VLCollator, build)


LLAVA_TYPES = ("llava", CropLlavaConfig.model_type)


def load_localizer(name: str, dtype: torch.dtype, device: torch.device) -> RegionLocalizer:
    """A checkpoint of this project's training, a grounding detector, or whatever else the Auto classes load.

    Raises:
        ConfigError: nothing under that name, or nothing that loads.
    """
    model_type = stored_model_type(name)
    if model_type == qwen2_vl.MODEL_TYPE:
        model, processor = qwen2_vl.load_qwen2_vl(name, dtype)
    elif model_type in LLAVA_TYPES:
        model, processor = load_merged(name, dtype=dtype)
    else:
        kind = ZeroShotLocalizer if model_type in DETECTORS else Localizer
        try:
            return kind.from_pretrained(name, dtype=dtype, device=device)
        except (OSError, ValueError) as error:
            raise ConfigError(f"localizer {name}: {one_line(error)}") from error
    return Localizer(model.to(device), processor)


def localizer_cost(name: str, text_tokens: int) -> dict[str, int | None]:
    """`localizer_macs` and `localizer_flops` of one question by formula; None of models that have none.

    Args:
        name: of the localizer.
        text_tokens: of the question, as the answering model's tokenizer and template count them.
    """
    if stored_model_type(name) not in LLAVA_TYPES:
        return {"localizer_macs": None, "localizer_flops": None}
    config = load_config(name)
    places = GridBoxProcessor(load_processor(name, config).tokenizer, prompt_length=0).places
    macs = LocalizerShape.from_llava(config).localize(text_tokens, places)
    return {"localizer_macs": macs.total, "localizer_flops": macs.flops}
