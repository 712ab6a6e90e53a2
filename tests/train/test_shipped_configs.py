"""Every configuration that the project ships says how it is called, and fills the dataclasses."""

import json
from pathlib import Path

import pytest
import yaml

from data_prep.common.command_line import parse_config
from train.arguments.data import DataArguments
from train.arguments.localizer import LocalizerModelArguments, LocalizerTrainingArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.evaluation.arguments import EvaluateArguments

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "configs/plc").glob("*.yaml")), ids=lambda path: path.stem)
def test_training_configurations(path: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With data that are there, and without the launcher that DeepSpeed asks for."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("train.arguments.model.is_bitsandbytes_available", lambda: True)
    name = path.relative_to(ROOT).as_posix()
    opening = [line for line in path.read_text().split("\n\n")[0].splitlines() if line]
    assert all(line.startswith("#") for line in opening)
    assert any(line.startswith(f"#   ./launch/train.sh {name}") for line in opening)
    data = f"[{{annotations: {toy_data / 'data.json'}, image_root: {toy_data / 'images'}}}]"
    words = [name, f"train_data={data}", f"eval_data={data}", "deepspeed=null", f"output_dir={tmp_path}"]
    model, _, args = parse_config(
        (ModelArguments, DataArguments, PlcTrainingArguments), words, prog="t", description=""
    )
    assert (model.lora_config() is None) == ("projector" in path.stem)
    assert ("quantization_config" in model.loading()) == ("qlora" in path.stem)
    assert args.max_grad_norm > 0
    if path.stem.startswith("llava"):  # LLaVA's batch, on one GPU for QLoRA and on eight for the others
        devices = 1 if "qlora" in path.stem else 8
        assert args.per_device_train_batch_size * args.gradient_accumulation_steps * devices == 128
        for budget in (128, 192):
            assert any(f"token_budget={budget}" in line for line in opening)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/localizer").glob("*.yaml")), ids=lambda path: path.stem)
def test_localizer_configurations(path: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of PLC."""
    monkeypatch.chdir(ROOT)
    name = path.relative_to(ROOT).as_posix()
    opening = path.read_text().split("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in opening)
    assert f"#   MODULE=train.localizer ./launch/train.sh {name}" in opening
    data = f"[{{annotations: {toy_data / 'data.json'}, image_root: {toy_data / 'images'}}}]"
    words = [name, f"train_data={data}", "deepspeed=null", f"output_dir={tmp_path}"]
    kinds = (LocalizerModelArguments, DataArguments, LocalizerTrainingArguments)
    model, _, args = parse_config(kinds, words, prog="t", description="")
    assert model.lora_config() is not None and args.projector_learning_rate > 0
    assert bool({"min_pixels", "max_pixels"} & set(model.processor())) == ("Qwen2-VL" in model.model)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/evaluate").glob("*.yaml")), ids=lambda path: path.stem)
def test_evaluations(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that has what they name: rows, samples and benchmarks are checked as they are read."""
    monkeypatch.chdir(tmp_path)
    written = yaml.safe_load(path.read_text())
    name = path.relative_to(ROOT).as_posix()
    assert any(line.startswith("#   ") and name in line for line in path.read_text().splitlines())
    for source in [*written.get("eval_data", []), *written.get("benchmarks", [])]:
        for key in ("annotations", "path", "image_root", "regions"):
            if key in source:
                Path(source[key]).mkdir(parents=True, exist_ok=True)
    arguments, _ = parse_config((EvaluateArguments, DataArguments), [str(path)], prog="t", description="")
    assert len(arguments.specs()) > 1
    assert [source.name for source in arguments.benchmarks] == [s["name"] for s in written.get("benchmarks", [])]


@pytest.mark.parametrize("path", sorted((ROOT / "configs/deepspeed").glob("*.json")), ids=lambda path: path.stem)
def test_every_preset_clips_gradients(path: Path) -> None:
    """transformers fills only the keys that are there: without this one nothing is clipped."""
    assert json.loads(path.read_text())["gradient_clipping"] == "auto"
