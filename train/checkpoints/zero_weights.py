"""Read weights from a DeepSpeed engine's states, for the one kind of checkpoint that has them nowhere else.

Training writes whole tensors in safetensors for every ZeRO stage and number of processes. The exception is ZeRO-3 with
`stage3_gather_16bit_weights_on_model_save` off and `lora: null`: only global_step<n>/ holds the weights, one part per
process. DeepSpeed's own `zero_to_fp32` puts them together. The states are pickles: reading them runs the code that they
hold, as resuming does.
"""

import pickle
import shutil
from pathlib import Path

import torch
from peft import get_peft_model
from transformers import PreTrainedModel

from data_prep.common.errors import ConfigError, one_line

from .loading import named, read_adapter

NOT_COPIED = ("global_step*", "latest*", "zero_to_*.py", "*.pt", "*.pth", "*.bin", "manifest.json")


def with_weights(checkpoint: str, folder: Path, model_class: type[PreTrainedModel]) -> str:
    """Return the checkpoint's name or, if only an engine's states hold its weights, write `folder` and return its name.

    Args:
        checkpoint: folder or Hub name.
        folder: is created, with the weights in fp32 and safetensors, and the checkpoint's other files as they are.
        model_class: of the model that was trained.

    Raises:
        ConfigError: states that are not whole.
    """
    path = Path(checkpoint)
    if any(path.glob("*.safetensors")) or not any(path.glob("global_step*/*_optim_states.pt")):
        return checkpoint
    from deepspeed.utils.zero_to_fp32 import (  # noqa: PLC0415 - takes seconds, and few checkpoints need it
        get_fp32_state_dict_from_zero_checkpoint,
    )

    adapter = read_adapter(checkpoint)
    try:
        state = get_fp32_state_dict_from_zero_checkpoint(checkpoint, exclude_frozen_parameters=adapter is not None)
    except (OSError, EOFError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        reason = one_line(error)[:200]
        raise ConfigError(f"model {checkpoint}: the engine's states are not whole: {reason}") from error
    shutil.copytree(checkpoint, folder, ignore=shutil.ignore_patterns(*NOT_COPIED))
    stored = named(checkpoint, model_class.config_class.from_pretrained)
    with torch.device("meta"):  # names and shapes, which is what saving needs
        model = model_class(stored).to(stored.dtype or torch.float32)  # config.json's type; weights stay fp32
        if adapter is not None:
            model.name_or_path = adapter.base_model_name_or_path  # PEFT writes that of the model, which has none yet
            model = get_peft_model(model, adapter)
    model.save_pretrained(folder, state_dict=state)
    return str(folder)
