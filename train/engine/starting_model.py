"""Open the checkpoint that a training starts from, and load it with what trains in it."""

import torch
from torch import nn

from data_prep.common.errors import ConfigError
from train.arguments.localizer import LocalizerModelArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.backbones.checkpoint import Checkpoint

from .kernels import apply_kernels


def open_to_train(model_arguments: ModelArguments, args: PlcTrainingArguments) -> Checkpoint:
    """Open the checkpoint and check the configuration against its backbone, before any weights are loaded.

    A localizer may be of any backbone; any other training needs one with a compressor.

    Raises:
        ConfigError: no such checkpoint, no compressor, keys that the backbone does not read, or nothing that trains.
    """
    localizes = isinstance(model_arguments, LocalizerModelArguments)
    if localizes and model_arguments.lora is None and _groups(model_arguments, args) == ["compressor"]:
        raise ConfigError("lora: nothing trains; give lora, full or projector_learning_rate")
    keys = vars(model_arguments), vars(args)
    return Checkpoint.open(model_arguments.model, *keys, needs_compressor=not localizes, **model_arguments.compressor())


def load_to_train(checkpoint: Checkpoint, model_arguments: ModelArguments, args: PlcTrainingArguments) -> nn.Module:
    """Load the model with its new adapter, if one is configured, and its kernels; what does not train is frozen.

    What trains is in fp32, unless DeepSpeed keeps fp32 copies by itself.
    """
    model = checkpoint.trainable(
        _groups(model_arguments, args),
        model_arguments.lora_config(checkpoint.backbone.lora_targets),
        torch.bfloat16 if args.bf16 else torch.float32,
        args.seed,
        **model_arguments.loading(),
    )
    apply_kernels(model, args)
    if not args.deepspeed:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
    return model


def _groups(model_arguments: ModelArguments, args: PlcTrainingArguments) -> list[str]:
    """List the module groups that train beside an adapter; a backbone may lack the compressor."""
    whole = isinstance(model_arguments, LocalizerModelArguments) and model_arguments.full
    trains = {"compressor": True, "projector": args.projector_learning_rate > 0, "language_model": whole}
    return [group for group in trains if trains[group]]
