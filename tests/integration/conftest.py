"""What several of these tests start from."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig

from train.arguments import LANGUAGE_MODEL_LINEARS
from train.checkpoint import build_model, load_checkpoint, load_config


@pytest.fixture(scope="session")
def lora_checkpoint(tiny_crop_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter, compressor and projector with random weights, saved as the Trainer saves them."""
    folder = tmp_path_factory.mktemp("run") / "final"
    config = load_config(tiny_crop_llava)
    _, processor = load_checkpoint(tiny_crop_llava)
    model = build_model(str(tiny_crop_llava), config, LoraConfig(r=4, target_modules=LANGUAGE_MODEL_LINEARS))
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
