"""A LLaVA with a compressor: how it is loaded, and what a training of it needs."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel

from crop_model.configuration_crop_llava import CropLlavaConfig
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.processing_crop_llava import CropLlavaProcessor
from data_prep.common.errors import ConfigError
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.checkpoints.loading import build_trained, load_model, named
from train.data.collator import Collator

from .base import Parts


def load_checkpoint(
    name: str | Path, dtype: torch.dtype = torch.float32, **compressor: Any
) -> tuple[CropLlavaForConditionalGeneration | PeftModel, CropLlavaProcessor]:
    """The model and its processor, ready for use: in eval mode, on the CPU.

    Args:
        name: folder or Hub name of any of the three kinds.
        dtype: of the weights.
        compressor: keys of `CropLlavaConfig` that differ from those stored, such as token_budget=28.

    Returns:
        A `PeftModel` where the folder holds an adapter (`merge_and_unload()` makes it plain), else a plain model.

    Raises:
        ConfigError: nothing loadable under that name, or compressor keys that do not fit the model.
    """
    config = load_config(name, **compressor)
    processor = load_processor(name, config)
    return load_model(str(name), CropLlavaForConditionalGeneration, dtype, config=config).eval(), processor


def load_merged(
    name: str | Path, dtype: torch.dtype = torch.float32, **compressor: Any
) -> tuple[CropLlavaForConditionalGeneration, CropLlavaProcessor]:
    """As `load_checkpoint`, an adapter merged into its base."""
    model, processor = load_checkpoint(name, dtype, **compressor)
    return model.merge_and_unload() if isinstance(model, PeftModel) else model, processor


def load_config(name: str | Path, **compressor: Any) -> CropLlavaConfig:
    """The configuration stored under `name`, with some of its compressor's keys replaced."""
    stored, _ = named(name, CropLlavaConfig.get_config_dict)
    if "vision_config" not in stored:  # an adapter of another program: the configuration would be a 7B's by default
        raise ConfigError(f"model {name}: no config.json that tells the model's sizes")
    return named(name, CropLlavaConfig.from_pretrained, **compressor)


def load_processor(name: str | Path, config: CropLlavaConfig, **options: Any) -> CropLlavaProcessor:
    """The processor stored under `name`, for a model of this configuration; `options` are the processor's own keys."""
    return named(name, CropLlavaProcessor.from_pretrained, token_budget=config.token_budget, **options)


def build_model(
    name: str,
    config: CropLlavaConfig,
    lora: LoraConfig | None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    train_projector: bool = True,
    **loading: Any,
) -> CropLlavaForConditionalGeneration | PeftModel:
    """A model to train: compressor and, if asked for, projector, and the adapter where there is one; nothing else.

    `loading` goes to `from_pretrained`: attn_implementation, quantization_config. With a LoRA configuration, compressor
    and projector become its `modules_to_save`, so that PEFT's checkpoints hold them. `seed` is of what is new,
    compressor and adapter, whatever else draws random numbers while loading.

    Raises:
        ConfigError: nothing loadable under that name, or an adapter under ZeRO-3, whose spread weights take no merging.
    """
    names = ("compressor", "multi_modal_projector") if train_projector else ("compressor",)
    return build_trained(name, CropLlavaForConditionalGeneration, names, lora, dtype, seed, config=config, **loading)


def llava_parts(model_arguments: ModelArguments, args: PlcTrainingArguments) -> Parts:
    """Of a LLaVA with a compressor."""
    config = load_config(model_arguments.model, **model_arguments.compressor())
    processor = load_processor(model_arguments.model, config, **model_arguments.processor())

    def build() -> CropLlavaForConditionalGeneration | PeftModel:
        return build_model(
            model_arguments.model,
            config,
            model_arguments.lora_config(),
            torch.bfloat16 if args.bf16 else torch.float32,
            args.seed,
            train_projector=args.projector_learning_rate > 0,
            **model_arguments.loading(),
        )

    return Parts(processor, Collator, build)
