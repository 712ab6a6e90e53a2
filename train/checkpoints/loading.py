"""Read configurations and weights from folders and Hub names, and name the model in every error.

`train.backbones.checkpoint.Checkpoint` is what the rest of the project loads models with.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils.peft_utils import find_adapter_config_file

from data_prep.common.errors import ConfigError, one_line

from . import base_weights


def read_config(name: str | Path) -> dict[str, Any]:
    """Read the config.json under `name`.

    Raises:
        ConfigError: there is no such folder or Hub name, or nothing that reads.
    """
    stored, _ = named(name, PreTrainedConfig.get_config_dict)
    return stored


def read_adapter(name: str | Path) -> PeftConfig | None:
    """Read the adapter_config.json under `name`, or return None if there is none."""
    return named(name, PeftConfig.from_pretrained) if named(name, find_adapter_config_file) is not None else None


def load_model(
    name: str, adapter: PeftConfig | None, model_class: type[PreTrainedModel], dtype: torch.dtype | str, **loading: Any
) -> Any:
    """Load the model stored under `name` as `Checkpoint.model` does, without a change of mode or device.

    Args (beyond those of `Checkpoint.model`):
        adapter: what `read_adapter` returns for `name`.
        model_class: of the model, or of the adapter's base.
    """
    if adapter is None:
        return named(name, model_class.from_pretrained, dtype=dtype, **loading)
    base_name = adapter.base_model_name_or_path
    if base_name is None:
        raise ConfigError(f"model {name}: its adapter_config.json names no base model")
    base = load_model(base_name, read_adapter(base_name), model_class, dtype, **loading)
    if isinstance(base, PeftModel):
        base = base.merge_and_unload()
    named(name, base_weights.check, base=base_name)
    return named(name, _load_adapter, base=base)


def _load_adapter(name: str, base: PreTrainedModel) -> PeftModel:
    """Load an adapter, and raise ValueError if it is not whole: PEFT only warns of missing LoRA weights."""
    if Path(name).is_dir() and not any(Path(name).glob("adapter_model.*")):
        raise ValueError("the adapter's weights are missing")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys", UserWarning)
        try:
            return PeftModel.from_pretrained(base, name, autocast_adapter_dtype=False)
        except (KeyError, RuntimeError, SafetensorError, UserWarning) as error:
            raise ValueError(f"the adapter is damaged: {str(error)[:200]}") from error


def named(name: str | Path, load: Any, **options: Any) -> Any:
    """Call a `from_pretrained`, and name the model in what goes wrong.

    Raises:
        ConfigError: `load` raised OSError, ValueError or SafetensorError.
    """
    try:
        return load(str(name), **options)
    except (OSError, ValueError, SafetensorError) as error:
        where = "" if Path(name).is_dir() else "no such folder, and from the Hub: "
        raise ConfigError(f"model {name}: {where}{one_line(error)}") from error
