"""The keys of a training configuration: what they refuse, and that a resolved configuration reads back."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.common.command_line import parse_config
from data_prep.common.errors import ConfigError
from data_prep.schema.data_source import DataSource
from train.arguments.data import DataArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.checkpoints.config_file import write_config

ALL = (ModelArguments, DataArguments, PlcTrainingArguments)


def parse(*words: str) -> tuple[Any, ...]:
    return parse_config(ALL, words, prog="prog", description="Does things.")


def test_help_explains_every_key(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for dtype in ALL:
        for key in dataclasses.fields(dtype):
            if key.init:
                assert f"\n  {key.name} (" in text
    assert "token_budget (default: None)" in text
    assert "model (required)" in text
    assert "%%" not in text


def test_resolved_configuration_reads_back(tmp_path: Path, toy_data: Path) -> None:
    words = [
        "model=x",
        "lora={r: 4, target_modules: [q_proj]}",
        "region_grid=null",
        f"train_data=[{{annotations: {toy_data / 'data.json'}, image_root: {toy_data / 'images'}, weight: 0.5}}]",
        f"output_dir={tmp_path}",
        "lr_scheduler_type=cosine",
        "warmup_steps=0.1",
        "use_cpu=true",
    ]
    parts = parse(*words)
    assert parts[1].train_data == [DataSource(str(toy_data / "data.json"), str(toy_data / "images"), None, 0.5)]
    write_config(tmp_path / "config.yaml", *parts)
    again = parse(str(tmp_path / "config.yaml"))
    assert again[:2] == parts[:2]
    assert again[2].to_dict() == parts[2].to_dict()
    assert not [key for key in yaml.safe_load((tmp_path / "config.yaml").read_text()) if key.endswith("_token")]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lora={rank: 4}", "lora: .*rank"),
        ("lora=4", "lora: expected a mapping"),
        ("lora={modules_to_save: [lm_head]}", "lora: modules_to_save is not free"),
        ("remove_unused_columns=true", "remove_unused_columns: must stay false"),
        ("region_grid=[8]", "region_grid: expected rows and columns"),
        ("compressor_type=best", "compressor_type: invalid choice"),
        ("chat_template=none.jinja", "chat_template: no such file: none.jinja"),
        ("deepspeed=none.json", "deepspeed: no such file: none.json"),
        ("deepspeed=configs/deepspeed/zero2.json", "deepspeed: start under its launcher"),
        ("hub_token=hf_secret", "^(?!.*secret).*hub_token"),
        ("train_data=[{annotations: none.json}]", "train_data: annotations: no such file or folder: none.json"),
        ("train_data=[{annotation: a.json}]", "train_data: expected keys of .*got \\['annotation'\\]"),
        ("train_data=[{annotations: setup.cfg, weight: 0}]", "train_data: weight: expected a number above 0"),
        ("logging_steps=0", "logging_steps"),
    ],
)
def test_values_that_the_keys_refuse(word: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.chdir(Path(__file__).parents[3])
    with pytest.raises(ConfigError, match=message) as caught:
        parse("model=x", f"output_dir={tmp_path}", "use_cpu=true", word)
    assert "\n" not in str(caught.value)


def test_keys_left_out_are_the_checkpoints(tmp_path: Path) -> None:
    model, _, _ = parse("model=x", f"output_dir={tmp_path}", "use_cpu=true")
    assert model.compressor() == model.processor() == {}
    words = ["token_budget=8", "region_grid=[]", "region_scale=1.5", "frame=squashed"]
    model, _, _ = parse("model=x", f"output_dir={tmp_path}", "use_cpu=true", *words)
    assert model.compressor() == {"token_budget": 8}
    assert model.processor() == {"frame": "squashed", "region_grid": None, "region_scale": 1.5}
