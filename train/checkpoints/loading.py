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
from transformers import PreTrainedConfig, PreTrainedModel, set_seed
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.utils.peft_utils import find_adapter_config_file

from data_prep.common.errors import ConfigError, one_line

from . import base_weights


def stored_model_type(name: str | Path) -> str | None:
    """What the configuration under `name` says that it is of. ConfigError where there is none."""
    stored, _ = named(name, PreTrainedConfig.get_config_dict)
    return stored.get("model_type")


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
        raise ConfigError(f"model {name}: {where}{one_line(error)}") from error
