"""Group a model's parameters by module: each group trains at a learning rate of its own."""

from torch import nn

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
