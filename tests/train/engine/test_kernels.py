"""Optional kernels: refused in one line where they are not installed, the same numbers where they are."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BitsAndBytesConfig

from data_prep.common.command_line import parse_config
from data_prep.common.errors import ConfigError
from train.arguments.data import DataArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.backbones.checkpoint import Checkpoint
from train.engine.run import build_trainer


def arguments(words: Sequence[str]) -> tuple[ModelArguments, DataArguments, PlcTrainingArguments]:
    return parse_config((ModelArguments, DataArguments, PlcTrainingArguments), words, prog="test", description="")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("attn_implementation=flash_attention_2", "attn_implementation: flash_attention_2 needs flash-attn"),
        ("load_in_4bit=true", "load_in_4bit: needs bitsandbytes"),
        ("use_liger_kernel=true", "use_liger_kernel: needs liger-kernel"),
    ],
)
def test_what_is_not_installed_is_named(
    word: str, message: str, plc_words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "model.is_flash_attn_2_available",
        "model.is_bitsandbytes_available",
        "training.is_liger_kernel_available",
    ):
        monkeypatch.setattr(f"train.arguments.{name}", lambda: False)
    with pytest.raises(ConfigError, match=message):
        arguments([*plc_words, word])


def test_four_bits_without_an_adapter_are_refused(plc_words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.arguments.model.is_bitsandbytes_available", lambda: True)
    with pytest.raises(ConfigError, match="load_in_4bit: needs lora"):
        arguments([*plc_words, "load_in_4bit=true", "lora=null"])
    options = arguments([*plc_words, "load_in_4bit=true"])[0].loading()["quantization_config"]
    assert options.bnb_4bit_quant_type == "nf4"
    (skipped,) = options.llm_int8_skip_modules
    assert re.match(skipped, "model.multi_modal_projector.linear_1")
    assert re.match(skipped, "lm_head")
    assert not re.match(skipped, "model.language_model.layers.0.mlp.up_proj")


def test_what_four_bits_trained_loads_without_them(plc_words: list[str], tmp_path: Path) -> None:
    trainer = build_trainer(*arguments(plc_words))
    trainer.model.config.quantization_config = BitsAndBytesConfig(load_in_4bit=True)
    trainer.save_model(str(tmp_path / "saved"))
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    model = Checkpoint.open(tmp_path / "saved").model()
    assert model.merge_and_unload().lm_head.weight.dtype == torch.float32
    assert trainer.model.config.quantization_config.load_in_4bit


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_is_the_one_asked_for(plc_words: list[str], attention: str) -> None:
    model = build_trainer(*arguments([*plc_words, f"attn_implementation={attention}"])).model
    for config in (model.config, model.config.text_config, model.config.vision_config):
        assert config._attn_implementation == attention


def test_compiled_steps_equal_eager_ones(plc_words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and run without generating code for it, which takes minutes."""
    compile_module = nn.Module.compile
    compiled: list[str] = []

    def compile_quickly(self: nn.Module, **options: Any) -> None:
        compiled.append(type(self).__name__)
        compile_module(self, backend="eager", **options)

    monkeypatch.setattr(nn.Module, "compile", compile_quickly)
    words = [
        *plc_words,
        "learning_rate=1e-3",
        "compressor_learning_rate=1e-3",
        "projector_learning_rate=1e-3",
        "max_steps=1",
    ]
    losses = [
        build_trainer(*arguments([*words, f"compile_modules={on}"])).train().training_loss for on in (False, True)
    ]
    assert sorted(compiled) == ["LlamaModel", "ModulesToSaveWrapper"]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
