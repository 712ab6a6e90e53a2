"""Fine-tune a localizer: from a question to the cells of its region, see `crop_model.localizer`.

    python -m train.localizer CONFIG.yaml [key=value ...]
    MODULE=train.localizer ./launch/train.sh CONFIG.yaml                 under DeepSpeed, on every GPU

    data_prep.localizer_data ─► question, "[x, y, x, y]" ─► Qwen2-VL (or a LLaVA) ─► output_dir/final

The trainer is that of `train.plc`, with its keys, launchers, checkpoints and resuming.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import Qwen2VLForConditionalGeneration

from data_prep.config import ConfigError

from . import qwen2_vl
from .arguments import DataArguments, ModelArguments, PlcTrainingArguments
from .checkpoint import build_trained, stored_model_type
from .plc import Parts, llava_parts, run

PROG = "python -m train.localizer"
# Keys whose values a Qwen2-VL would not read, and what they have to be.
OF_LLAVA_ALONE = {
    **dict.fromkeys(("compressor_type", "token_budget", "region_ratio", "compressor_num_attention_heads"), None),
    **dict.fromkeys(("frame", "region_grid", "region_scale", "region_min_side", "quantization"), None),
    **dict.fromkeys(("region_jitter", "localizer_probability", "global_probability", "picture_steps"), 0),
    **{"pack_length": None, "on_bad_sample": "raise"},
}


@dataclass
class LocalizerModelArguments(ModelArguments):
    """`ModelArguments`, and the sizes of Qwen2-VL's images; its other keys are of LLaVA alone."""

    model: str = field(
        default="Qwen/Qwen2-VL-2B-Instruct",
        metadata={"help": "Folder or Hub name of a Qwen2-VL, a LLaVA in llava-hf format, or a checkpoint of either."},
    )
    min_pixels: int | None = field(
        default=None,
        metadata={"help": "Of Qwen2-VL: an image is resized to at least so many; null: as the model says."},
    )
    max_pixels: int | None = field(
        default=None, metadata={"help": "Of Qwen2-VL: an image is resized to at most so many, 784 a token; null: same."}
    )
    full: bool = field(
        default=False,
        metadata={"help": "Train all weights of the language model and its head, at learning_rate; lora must be null."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.full and self.lora is not None:
            raise ConfigError("full: lora must be null: the weights train, or an adapter beside them")

    def pixels(self) -> dict[str, int]:
        """min_pixels and max_pixels, those that are set."""
        return self._given(("min_pixels", "max_pixels"))


@dataclass
class LocalizerTrainingArguments(PlcTrainingArguments):
    """`PlcTrainingArguments` with a projector that stays frozen unless asked for."""

    projector_learning_rate: float = field(
        default=0.0,
        metadata={"help": "Peak learning rate of LLaVA's projector or Qwen2-VL's vision merger; 0: it stays frozen."},
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point, with the exit statuses of `train.plc`."""
    kinds = (LocalizerModelArguments, DataArguments, LocalizerTrainingArguments)
    run(argv, kinds, localizer_parts, PROG, "Fine-tune a localizer.")


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


if __name__ == "__main__":
    main()
