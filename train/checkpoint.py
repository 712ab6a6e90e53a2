"""Models for training and from disk: what is trained, and how a folder becomes a model and its processor.

Three kinds of folder (or Hub name) are understood: a llava-hf base, a whole model of this project, and an adapter with
compressor and projector beside it (PEFT), which names its base.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, set_seed
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils.peft_utils import find_adapter_config_file

from crop_model.configuration_crop_llava import CropLlavaConfig
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.processing_crop_llava import CropLlavaProcessor
from data_prep.config import ConfigError

from . import base_weights

# What trains: a parameter belongs to the first of these groups whose mark stands in its name.
#   group            marks, of LLaVA and of Qwen2-VL           learning rate
#   lora             lora_                                     learning_rate
#   compressor       compressor.                               compressor_learning_rate
#   projector        multi_modal_projector.  visual.merger.    projector_learning_rate
#   vision_tower     vision_tower.           visual.           never trains
#   language_model   whatever is left, the head too            learning_rate, of a localizer trained whole
MODULE_MARKS = {
    "lora": ("lora_",),
    "compressor": ("compressor.",),
    "projector": ("multi_modal_projector.", "visual.merger."),
    "vision_tower": ("vision_tower.", "visual."),
    "language_model": ("",),
}
TRAINED_GROUPS = ("lora", "compressor", "projector", "language_model")


def module_group(parameter_name: str) -> str:
    """The row of `MODULE_MARKS` that a parameter belongs to."""
    return next(group for group, marks in MODULE_MARKS.items() if any(mark in parameter_name for mark in marks))


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


def stored_model_type(name: str | Path) -> str | None:
    """What the configuration under `name` says that it is of. ConfigError where there is none."""
    stored, _ = named(name, PreTrainedConfig.get_config_dict)
    return stored.get("model_type")


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


def build_trained(
    name: str,
    model_class: type[PreTrainedModel],
    parts: Sequence[str],
    lora: LoraConfig | None,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    **loading: Any,
) -> Any:
    """A model of any class, in which its `parts` and the adapter train: see `build_model`.

    Args:
        parts: modules of `model.model`; one without weights is passed over.
    """
    if is_deepspeed_zero3_enabled() and has_adapter(name):
        raise ConfigError(f"model {name}: ZeRO-3 cannot go on from an adapter; export it, or take another preset")
    set_seed(seed)
    model = load_model(name, model_class, dtype, **loading)
    if isinstance(model, PeftModel):  # goes on from an adapter: a new one on top of it
        model = model.merge_and_unload()
        model.name_or_path = name
    model.requires_grad_(False)
    modules = {part: model.model.get_submodule(part) for part in parts}
    trained = [part for part, module in modules.items() if next(module.parameters(), None) is not None]
    if lora is None:
        for part in trained:
            modules[part].requires_grad_(True)
        return model
    lora.modules_to_save = trained
    set_seed(seed)
    # ZeRO-3 needs the adapter in the model's own type; whoever wants fp32 casts afterwards
    return get_peft_model(model, lora, autocast_adapter_dtype=False)


def trainable_parameters(model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """The trainable parameters by group, without empty groups.

    Raises:
        ValueError: a parameter trains outside of `TRAINED_GROUPS`: no learning rate is set for it.
    """
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(module_group(name), []).append((name, parameter))
    if stray := set(groups) - set(TRAINED_GROUPS):
        raise ValueError(f"{groups[min(stray)][0][0]} trains, but {min(stray)} has no learning rate")
    return {group: groups[group] for group in TRAINED_GROUPS if group in groups}


def load_model(
    name: str, model_class: type[PreTrainedModel], dtype: torch.dtype | str = torch.float32, **loading: Any
) -> Any:
    """The model stored under `name`; an adapter on its base, which `loading` is for too: a `PeftModel`.

    Raises:
        ConfigError: nothing loadable under that name, or a base with other weights than the adapter was trained on.
    """
    if not has_adapter(name):
        return named(name, model_class.from_pretrained, dtype=dtype, **loading)
    base_name = named(name, PeftConfig.from_pretrained).base_model_name_or_path
    if base_name is None:
        raise ConfigError(f"model {name}: its adapter_config.json names no base model")
    base = load_model(base_name, model_class, dtype, **loading)
    if isinstance(base, PeftModel):
        base = base.merge_and_unload()
    named(name, base_weights.check, base=base_name)
    return named(name, _load_adapter, base=base)


def _load_adapter(name: str, base: PreTrainedModel) -> PeftModel:
    """ValueError where the adapter is not whole: PEFT only warns of missing LoRA weights."""
    if Path(name).is_dir() and not any(Path(name).glob("adapter_model.*")):
        raise ValueError("the adapter's weights are missing")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys", UserWarning)
        try:
            return PeftModel.from_pretrained(base, name, autocast_adapter_dtype=False)
        except (KeyError, RuntimeError, SafetensorError, UserWarning) as error:
            raise ValueError(f"the adapter is damaged: {str(error)[:200]}") from error


def has_adapter(name: str) -> bool:
    """Whether a folder or Hub name is of the third kind."""
    return named(name, find_adapter_config_file) is not None


def named(name: str | Path, load: Any, **options: Any) -> Any:
    """Call a `from_pretrained`, and name the model in what goes wrong."""
    try:
        return load(str(name), **options)
    except (OSError, ValueError, SafetensorError) as error:
        where = "" if Path(name).is_dir() else "no such folder, and from the Hub: "
        raise ConfigError(f"model {name}: {where}{' '.join(str(error).split())}") from error
