"""What a run folder states for a card: settings, data and hardware, but no path of this machine."""

import dataclasses
import json
from pathlib import Path

import pytest

from data_prep.common.command_line import parse_config
from data_prep.common.errors import ConfigError
from train.arguments.data import DataArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.checkpoints.config_file import CONFIG_FILE, write_config
from train.checkpoints.environment import ENVIRONMENT_FILE
from train.engine.meter import LOG_FILE
from train.publishing.run_summary import TrainingSource, read_run


@pytest.fixture
def run(plc_words: list[str], tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "final").mkdir(parents=True)
    words = [*plc_words, f"output_dir={folder}", f"run_name={tmp_path}/secret", "weight_decay=0.0"]
    parts = parse_config((ModelArguments, DataArguments, PlcTrainingArguments), words, prog="t", description="")
    write_config(folder / CONFIG_FILE, *parts)
    lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "train_runtime": 12.5}]
    (folder / LOG_FILE).write_text("".join(f"{json.dumps(line)}\n" for line in lines) + '{"step": 3, "lo')
    (folder / ENVIRONMENT_FILE).write_text(json.dumps({"processes": 2}))
    return folder


def test_what_a_run_folder_states(run: Path, tiny_crop_llava: Path, toy_data: Path, tmp_path: Path) -> None:
    facts = read_run(str(run / "final"))
    assert facts is not None
    assert (facts.base_model, facts.base_name) == (None, tiny_crop_llava.name)
    assert (facts.steps, facts.seconds, facts.environment) == (2, 12.5, {"processes": 2})
    assert facts.sources == (TrainingSource("toy", 16, {"human": 16}, "not known here"),)
    assert facts.settings["lora"] == {"r": 4, "lora_alpha": 8}
    assert facts.settings["per_device_train_batch_size"] == 4  # free to change when resuming, and still of interest
    assert facts.settings["compressor_learning_rate"] == 2e-2
    assert {"weight_decay", "output_dir", "run_name", "train_data", "frame", "bf16"}.isdisjoint(facts.settings)
    stated = repr(dataclasses.asdict(facts))
    assert not any(str(path) in stated for path in (tmp_path, tiny_crop_llava.parent, toy_data))


def test_a_name_on_the_hub_stays_one(run: Path) -> None:
    text = (run / CONFIG_FILE).read_text()
    first = text.splitlines()[0]
    assert first.startswith("model: ")
    (run / CONFIG_FILE).write_text(text.replace(first, "model: llava-hf/llava-1.5-7b-hf"))
    facts = read_run(str(run / "final"))
    assert facts is not None and facts.base_model == facts.base_name == "llava-hf/llava-1.5-7b-hf"


def test_no_run_is_no_error_and_a_foreign_configuration_is(run: Path, tmp_path: Path) -> None:
    assert read_run("owner/name") is None
    assert read_run(str(run)) is None  # beside it lies no configuration
    (run / CONFIG_FILE).write_text("a: 1")
    with pytest.raises(ConfigError, match=r"config.yaml: not a configuration of train.plc"):
        read_run(str(run / "final"))


def test_a_source_without_its_sidecar_keeps_its_name(run: Path, toy_data: Path) -> None:
    text = (run / CONFIG_FILE).read_text()
    (run / CONFIG_FILE).write_text(text.replace(str(toy_data / "regions" / "toy"), str(toy_data / "gone")))
    facts = read_run(str(run / "final"))
    assert facts is not None and facts.sources == (TrainingSource("data", None, {}, "not known here"),)
