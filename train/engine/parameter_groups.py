"""Group a model's parameters by module: each group trains at a learning rate of its own.

group            what is in it                               learning rate
lora             LoRA's matrices                             learning_rate
compressor       the compressor                              compressor_learning_rate
projector        LLaVA's projector, Qwen2-VL's merger        projector_learning_rate
vision_tower     the vision tower                            never trains
language_model   all other parameters, the head among them   learning_rate, of a localizer trained whole

`Backbone.modules` maps each group to its path in a model.
"""

from typing import Any

import torch
from torch import nn

from train.arguments.training import PlcTrainingArguments
from train.backbones import BACKBONES

TRAINED_GROUPS = ("lora", "compressor", "projector", "language_model")


def trainable_parameters(model: Any) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """Collect the names and parameters that train, by group, without empty groups.

    Raises:
        ValueError: a parameter trains outside of `TRAINED_GROUPS`: no learning rate is set for it.
    """
    backbone = BACKBONES[model.config.model_type]
    groups: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(backbone.module_group(name), []).append((name, parameter))
    if stray := set(groups) - set(TRAINED_GROUPS):
        raise ValueError(f"{groups[min(stray)][0][0]} trains, but {min(stray)} has no learning rate")
    return {group: groups[group] for group in TRAINED_GROUPS if group in groups}


def parameter_groups(model: nn.Module, args: PlcTrainingArguments) -> list[dict[str, Any]]:
    """Make the optimizer's groups: the trained modules at their learning rates, with weight decay on matrices only."""
    rates = {
        "lora": args.learning_rate,
        "compressor": args.compressor_learning_rate,
        "projector": args.projector_learning_rate,
        "language_model": args.learning_rate,
    }
    groups = []
    for name, parameters in trainable_parameters(model).items():
        matrices = [parameter for _, parameter in parameters if len(shape_of(parameter)) > 1]
        vectors = [parameter for _, parameter in parameters if len(shape_of(parameter)) <= 1]
        for members, decay in ((matrices, args.weight_decay), (vectors, 0.0)):
            if members:
                groups.append({"name": name, "params": members, "lr": rates[name], "weight_decay": decay})
    return groups


def what_trains(model: Any, args: PlcTrainingArguments) -> str:
    """Make a table with one line per module group: parameters, how many of them train, and the learning rate."""
    backbone = BACKBONES[model.config.model_type]
    rates = {group["name"]: group["lr"] for group in parameter_groups(model, args)}
    counts = {group: [0, 0] for group in backbone.module_groups}
    for name, parameter in model.named_parameters():
        if ".original_module." in name:  # PEFT's frozen copy of what modules_to_save trains
            continue
        size = shape_of(parameter).numel()
        counts[backbone.module_group(name)][0] += size
        counts[backbone.module_group(name)][1] += size * parameter.requires_grad
    lines = [f"{'what trains':<16}{'parameters':>16}{'trainable':>16}{'learning rate':>16}"]
    for group, (total, trainable) in counts.items():
        if total:
            rate = f"{rates[group]:g}" if trainable else "frozen"
            lines.append(f"{group:<16}{total:>16,}{trainable:>16,}{rate:>16}")
    return "\n".join(lines)


def shape_of(parameter: nn.Parameter) -> torch.Size:
    """Return the shape of the whole parameter, of which ZeRO-3 leaves an empty shell that knows its `ds_shape`."""
    return getattr(parameter, "ds_shape", parameter.shape)
