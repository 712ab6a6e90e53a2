"""The keys of a training configuration: what they refuse, and that a resolved configuration reads back."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import TrainingArguments

from data_prep.common.command_line import current_names, parse_config
from data_prep.common.errors import ConfigError
from data_prep.schema.data_source import DataSource
from train.arguments.data import DataArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments, deepspeed_config
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
        ("lora={rank: 4}", r"line: lora\.rank: unknown key, none of \['task_type', .*'r', "),
        ("lora={alpha: 4}", r"line: lora\.alpha: unknown key \(did you mean 'lora_alpha'\?\)$"),
        ("lora.r=x", r"line: lora\.r: expected a whole number above 0, got 'x'$"),
        ("lora={r: 0}", r"line: lora\.r: expected a whole number above 0, got 0$"),
        ("lora={r: null}", r"line: lora\.r: expected a whole number above 0, got None$"),
        ("lora={lora_alpha: much}", r"line: lora\.lora_alpha: expected a .*number.*, got 'much'$"),
        ("lora={lora_alpha: true}", r"line: lora\.lora_alpha: expected a number, got true$"),
        ("lora={lora_dropout: 1.5}", r"line: lora\.lora_dropout: expected a number from 0 to below 1, got 1.5$"),
        ("lora={bias: some}", r"line: lora\.bias: expected 'none', 'all' or 'lora_only', got 'some'$"),
        ("lora={use_dora: 7}", r"line: lora\.use_dora: expected true or false, got 7$"),
        (
            "lora={target_modules: {a: b}}",
            r"line: lora\.target_modules: expected a (list or a text|text or a list), got ",
        ),
        ("lora={rank_pattern: {q_proj: 0}}", r"line: lora\.rank_pattern: expected a whole number above 0, got 0$"),
        ("lora=4", "lora: expected a mapping"),
        ("lora={modules_to_save: [lm_head]}", "lora: modules_to_save is not free"),
        ("remove_unused_columns=true", "remove_unused_columns: must stay false"),
        ("region_grid=[8]", "region_grid: expected rows and columns"),
        ("compressor_type=best", "compressor_type: expected .*got 'best'"),
        ("chat_template=none.jinja", "chat_template: no such file: none.jinja"),
        ("deepspeed=none.json", "deepspeed: no such file: none.json"),
        ("deepspeed=configs/deepspeed/zero2.json", "deepspeed: start it by ./launch/train.sh .*deepspeed=null"),
        ("hub_token=hf_secret", "^(?!.*secret).*hub_token"),
        ("train_data=[{annotations: none.json}]", r"train_data\.0\.annotations: no such file or folder: none.json"),
        ("train_data=[{annotation: a.json}]", r"train_data\.0\.annotation: unknown key .did you mean 'annotations'"),
        ("train_data=[{annotations: setup.cfg, weight: 0}]", r"train_data\.0\.weight: expected a number above 0"),
        ("logging_steps=0", "line: logging_steps: expected a whole number above 0, or a share .*, got 0"),
        ("save_steps=2.5", "line: save_steps: expected a whole number above 0, or a share .*, got 2.5"),
        ("per_device_train_batch_size=0", "line: per_device_train_batch_size: expected a number above 0, got 0"),
        ("gradient_accumulation_steps=0", "line: gradient_accumulation_steps: expected a number above 0, got 0"),
        ("num_train_epochs=.nan", "line: num_train_epochs: expected a number above 0, got nan"),
        ("learning_rate=-1", "line: learning_rate: expected a number of at least 0, got -1"),
        ("compressor_learning_rate=-1", "line: compressor_learning_rate: expected a number of at least 0"),
        ("projector_learning_rate=.inf", "line: projector_learning_rate: expected a number of at least 0, got inf"),
        ("max_steps=0", "line: max_steps: expected a whole number above 0, or -1 for num_train_epochs, got 0"),
        ("adam_beta1=1", "line: adam_beta1: expected a number from 0 to below 1"),
        ("seed=-1", "line: seed: expected a number from 0 to below"),
        ("max_bad_fraction=2", "line: max_bad_fraction: expected a share from 0 to 1"),
    ],
)
def test_values_that_the_keys_refuse(word: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.chdir(Path(__file__).parents[3])
    with pytest.raises(ConfigError, match=message) as caught:
        parse("model=x", f"output_dir={tmp_path}", "use_cpu=true", word)
    assert "\n" not in str(caught.value)


def test_every_mistake_of_lora_is_reported_with_the_others(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("model: x\nlora: {r: 16, alpha: 4, bias: some}\n")
    with pytest.raises(ConfigError) as caught:
        parse(str(config), f"output_dir={tmp_path}", "lora.r=0", "learning_rate=-1", "region_grid=[8]")
    starts = (
        "{}: region_grid: ",
        "{}: lora.bias: ",
        "command line: lora.r: ",
        "{}: lora.alpha: ",
        "{}: learning_rate: ",
    )
    lines = str(caught.value).splitlines()
    assert all(
        line.startswith((s.format(config), s.format("command line"))) for s, line in zip(starts, lines, strict=True)
    )


def test_numbers_of_lora_may_be_texts(tmp_path: Path) -> None:
    """YAML reads 1e-1 as a text."""
    words = ["lora.r=4", "lora.lora_dropout=1e-1", "lora.layer_replication=[[0, 1]]", "lora.lora_alpha=8"]
    config = parse("model=x", f"output_dir={tmp_path}", "use_cpu=true", *words)[0].lora_config("linear")
    assert (config.r, config.lora_dropout, config.target_modules, config.lora_alpha) == (4, 0.1, "linear", 8)


@pytest.mark.parametrize("folder", ["taken", "taken/run"])
def test_an_output_folder_that_is_a_file(folder: str, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    message = f"^command line: output_dir: {tmp_path}/taken is a file, not a folder\ncommand line: eval_steps: "
    with pytest.raises(ConfigError, match=message):
        parse("model=x", f"output_dir={tmp_path}/{folder}", "use_cpu=true", "eval_strategy=steps", "eval_steps=0")


def test_keys_left_out_are_the_checkpoints(tmp_path: Path) -> None:
    model, _, _ = parse("model=x", f"output_dir={tmp_path}", "use_cpu=true")
    assert model.compressor() == model.processor() == {}
    words = ["token_budget=8", "region_grid=[]", "region_scale=1.5", "frame=squashed"]
    model, _, _ = parse("model=x", f"output_dir={tmp_path}", "use_cpu=true", *words)
    assert model.compressor() == {"token_budget": 8}
    assert model.processor() == {"frame": "squashed", "region_grid": None, "region_scale": 1.5}


def test_former_names_of_keys(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run's configuration of then holds them; and an identity of then is compared under the present names."""
    monkeypatch.setattr("train.arguments.model.is_bitsandbytes_available", lambda: True)
    old = tmp_path / "config.yaml"
    old.write_text("model: x\nattention: eager\nquantization: null\n")
    words = [str(old), f"output_dir={tmp_path}", "use_cpu=true"]
    model = parse(*words)[0]
    assert (model.attn_implementation, model.load_in_4bit) == ("eager", False)
    assert f"{old}: attention: is now called attn_implementation\n" in capsys.readouterr().err
    model = parse(*words, "quantization=4bit", "lora={r: 4}")[0]
    assert model.loading()["quantization_config"].load_in_4bit
    assert parse(*words, "attn_implementation=sdpa")[0].attn_implementation == "sdpa"
    with pytest.raises(ConfigError, match=r"^command line: attention: is the former name of attn_implementation"):
        parse(*words, "attn_implementation=sdpa", "attention=sdpa")
    with pytest.raises(ConfigError, match="load_in_4bit: expected true or false, got '8bit'"):
        parse(*words, "quantization=8bit")
    identity = {"attention": "sdpa", "quantization": None, "seed": 1}
    assert current_names((ModelArguments,), identity) == {
        "attn_implementation": "sdpa",
        "load_in_4bit": False,
        "seed": 1,
    }


def test_a_deepspeed_preset_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[3]
    monkeypatch.chdir(root)
    assert deepspeed_config("zero2") == deepspeed_config("configs/deepspeed/zero2.json")
    monkeypatch.chdir(tmp_path)
    assert deepspeed_config("zero3") == str(root / "configs" / "deepspeed" / "zero3.json")
    with pytest.raises(
        ConfigError, match="deepspeed: 'zero9' is none of the presets zero0, zero2, zero2_offload, zero3"
    ):
        deepspeed_config("zero9")
    monkeypatch.setattr("train.arguments.training.DEEPSPEED_PRESETS", (tmp_path / "gone",))
    with pytest.raises(ConfigError, match="deepspeed: zero2: presets lie in configs/deepspeed of a clone"):
        deepspeed_config("zero2")


def test_transformers_keys_take_what_they_took(tmp_path: Path) -> None:
    """Numbers that YAML reads as texts, enumerations by value, mappings, lists or a word."""
    words = [
        "learning_rate=1e-4",
        "optim=adamw_torch",
        "save_strategy=no",
        "report_to=none",
        "debug=underflow_overflow",
    ]
    words += ["lr_scheduler_type=cosine_with_min_lr", "lr_scheduler_kwargs={min_lr: 1.0e-5}", "max_steps=3"]
    words += ["accelerator_config={split_batches: true}", "logging_steps=5", "warmup_steps=0.1", "save_total_limit=2"]
    args = parse("model=x", f"output_dir={tmp_path}", "use_cpu=true", *words)[2]
    assert (args.learning_rate, args.max_steps, args.report_to) == (1e-4, 3, [])
    assert (args.save_strategy, args.optim, args.lr_scheduler_type) == ("no", "adamw_torch", "cosine_with_min_lr")
    assert args.lr_scheduler_kwargs == {"min_lr": 1e-5} and args.accelerator_config.split_batches
    with pytest.raises(ConfigError, match=r"^command line: lr_scheduler_type: expected 'linear', 'cosine'"):
        parse("model=x", f"output_dir={tmp_path}", "use_cpu=true", "lr_scheduler_type=cosin")


def test_post_init_runs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    run = TrainingArguments.__post_init__

    def count(self: TrainingArguments) -> None:
        seen.append(self.learning_rate)
        run(self)

    monkeypatch.setattr(TrainingArguments, "__post_init__", count)
    parse("model=x", f"output_dir={tmp_path}", "use_cpu=true", "learning_rate=3e-4")
    assert seen == [3e-4]
