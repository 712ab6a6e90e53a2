"""Estimates the device memory of the configurations in configs/plc, by formula. Nothing is measured.

    python tests/benchmarks/memory.py

Parameters are counted on the model's own modules, built without memory. For each device, with N of them under ZeRO-2:

    weights        2 bytes a parameter in bf16; 0.56 for the language model's linear layers in 4 bits (NF4, scales)
    training       2 bytes gradient, 12 bytes fp32 weight and Adam's two moments, both / N
    activations    gradient checkpointing: every layer's input, 2 d bytes a token; one layer at a time, 34 d a token
                   (Korthikanti et al. 2022, without the attention matrix); logits, 10 bytes a token and word;
                   the vision tower's outputs of all layers, 2 d bytes a patch
    and 10 % for buffers and fragments.
"""

from pathlib import Path
from typing import Any

import torch
from llava_sizes import PATCHES, VOCABULARY, llava_config
from peft import LoraConfig, get_peft_model

from crop_model.configuration_crop_llava import CropLlavaConfig
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from data_prep.common.command_line import read_yaml
from train.backbones import BACKBONES
from train.backbones.base import LANGUAGE_MODEL_LINEARS

CONFIGS = Path(__file__).parents[2] / "configs" / "plc"
BUDGETS = (192, 128, 64)
TEXT_TOKENS = 150  # of a sample
SIZES = {"llava-1.5-7b": "7b", "llava-1.5-13b": "13b"}


def build(config: CropLlavaConfig, lora: dict[str, Any] | None) -> torch.nn.Module:
    """The model on torch's `meta` device, with what trains marked."""
    with torch.device("meta"):
        model = CropLlavaForConditionalGeneration(config)
        model.requires_grad_(False)
        parts = ["compressor", "multi_modal_projector"]
        if lora is not None:
            options = {"target_modules": LANGUAGE_MODEL_LINEARS, "modules_to_save": parts, **lora}
            return get_peft_model(model, LoraConfig(**options), autocast_adapter_dtype=False)
        for part in parts:
            model.model.get_submodule(part).requires_grad_(True)
        return model


def gigabytes(config: dict[str, Any], size: str, budget: int, devices: int) -> dict[str, float]:
    """GB by kind, on one device."""
    shape = llava_config(size, "region_ratio", budget)
    model = build(shape, config["lora"])
    weights = trained = 0.0
    for name, parameter in model.named_parameters():
        if ".original_module." not in name:
            linear = BACKBONES["crop_llava"].module_group(name) == "language_model" and "_proj." in name
            weights += parameter.numel() * (0.56 if linear and config.get("load_in_4bit") else 2)
            trained += parameter.numel() * parameter.requires_grad
    samples, width, layers = (
        config["per_device_train_batch_size"],
        shape.text_config.hidden_size,
        shape.text_config.num_hidden_layers,
    )
    tokens = samples * (TEXT_TOKENS + budget)
    patches = samples * PATCHES * shape.vision_config.hidden_size * (shape.vision_config.num_hidden_layers + 1)
    activations = tokens * (2 * width * layers + 34 * width + 10 * VOCABULARY) + 2 * patches
    parts = {"weights": weights, "training": (2 + 12) * trained / devices, "activations": activations}
    parts["in all"] = 1.1 * sum(parts.values())
    return {name: value / 1e9 for name, value in parts.items()}


def main() -> None:
    print("| configuration | devices | tokens | weights, GB | training, GB | activations, GB | in all, GB |")
    print("|---|---|---|---|---|---|---|")
    for path in sorted(CONFIGS.glob("llava-*.yaml")):
        config = read_yaml(path)
        size = next(size for name, size in SIZES.items() if path.name.startswith(name))
        for devices in (1, 8):
            for budget in BUDGETS:
                figures = " | ".join(f"{value:.1f}" for value in gigabytes(config, size, budget, devices).values())
                print(f"| {path.stem} | {devices} | {budget} | {figures} |")


if __name__ == "__main__":
    main()
