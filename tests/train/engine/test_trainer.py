"""One step of training: who learns and who does not, by how much, from what loss, and what is written down."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from crop_model.configuration_crop_llava import COMPRESSOR_KEYS, CropLlavaConfig
from data_prep.common.command_line import parse_config
from data_prep.common.errors import ConfigError, RunError
from train.arguments.data import DataArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.backbones import BACKBONES
from train.backbones.checkpoint import Checkpoint
from train.engine.parameter_groups import parameter_groups, trainable_parameters, what_trains
from train.engine.run import build_trainer, train
from train.engine.trainer import PlcTrainer, exact_matches

module_group = BACKBONES["crop_llava"].module_group


def arguments(words: Sequence[str]) -> tuple[ModelArguments, DataArguments, PlcTrainingArguments]:
    return parse_config((ModelArguments, DataArguments, PlcTrainingArguments), words, prog="test", description="")


def build(words: Sequence[str], *more: str) -> PlcTrainer:
    return build_trainer(*arguments([*words, *more]))


def copy_of(trainer: PlcTrainer) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()}


# ---- what trains


def test_every_group_has_its_learning_rate_and_matrices_alone_decay(plc_words: list[str]) -> None:
    trainer = build(plc_words)
    rates = {"lora": 1e-2, "compressor": 2e-2, "projector": 3e-2}
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    seen = []
    for group in parameter_groups(trainer.model, trainer.args):
        assert group["lr"] == rates[group["name"]]
        for parameter in group["params"]:
            assert module_group(names[id(parameter)]) == group["name"]
            assert group["weight_decay"] == (0.01 if parameter.dim() > 1 else 0)
            seen.append(names[id(parameter)])
    assert sorted(seen) == sorted(name for name, p in trainer.model.named_parameters() if p.requires_grad)
    assert trainer.create_optimizer().param_groups[0]["lr"] == 1e-2


def test_the_table_counts_every_parameter_once(plc_words: list[str]) -> None:
    trainer = build(plc_words)
    lines = {line.split()[0]: line.split()[1:] for line in what_trains(trainer.model, trainer.args).splitlines()[1:]}
    assert list(lines) == ["lora", "compressor", "projector", "vision_tower", "language_model"]
    base = Checkpoint.open(plc_words[0].removeprefix("model=")).model()
    for group in ("compressor", "projector", "vision_tower", "language_model"):
        count = sum(parameter.numel() for name, parameter in base.named_parameters() if module_group(name) == group)
        assert int(lines[group][0].replace(",", "")) == count
        assert lines[group][1] == (lines[group][0] if group in ("compressor", "projector") else "0")
    assert [line[2] for line in lines.values()] == ["0.01", "0.02", "0.03", "frozen", "frozen"]


def test_a_projector_without_a_learning_rate_stays_frozen(plc_words: list[str]) -> None:
    trainer = build(plc_words, "projector_learning_rate=0", "max_steps=1", "warmup_steps=0")
    before = copy_of(trainer)
    trainer.train()
    after = copy_of(trainer)
    moved = {module_group(name) for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"lora", "compressor"}
    lines = what_trains(trainer.model, trainer.args).splitlines()
    assert [line.split()[0] for line in lines if "frozen" in line] == ["projector", "vision_tower", "language_model"]


def test_nothing_trains_without_a_learning_rate(plc_words: list[str]) -> None:
    trainer = build(plc_words)
    next(p for name, p in trainer.model.named_parameters() if "vision_tower" in name).requires_grad_(True)
    with pytest.raises(ValueError, match="vision_tower has no learning rate"):
        trainable_parameters(trainer.model)


@pytest.mark.parametrize("lora", ["lora={r: 4, lora_alpha: 8, init_lora_weights: gaussian}", "lora=null"])
def test_every_trainable_tensor_moves_and_every_frozen_one_stays(plc_words: list[str], lora: str) -> None:
    trainer = build(plc_words, lora, "max_steps=1", "warmup_steps=0", "lr_scheduler_type=constant")
    gradients: dict[str, float] = {}
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            if "lora_B" in name:  # starts at zero, which would leave lora_A without a gradient in the first step
                torch.nn.init.normal_(parameter, std=0.1)
            parameter.register_post_accumulate_grad_hook(
                lambda p, name=name: gradients.update({name: p.grad.abs().max().item()})
            )
    before = copy_of(trainer)
    trainer.train()
    after = copy_of(trainer)
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert {module_group(name) for name in trained} == ({"lora"} if "null" not in lora else set()) | {
        "compressor",
        "projector",
    }
    assert set(gradients) == trained
    assert min(gradients.values()) > 0
    for name in before:
        assert torch.equal(before[name], after[name]) == (name not in trained), name


def test_the_vision_tower_keeps_no_graph(plc_words: list[str]) -> None:
    trainer = build(plc_words)
    outputs = []
    tower = next(module for name, module in trainer.model.named_modules() if name.endswith("vision_tower"))
    tower.register_forward_hook(lambda module, inputs, output: outputs.append(output.hidden_states[-2]))
    trainer.train()
    assert outputs
    assert not any(output.requires_grad for output in outputs)


# ---- the loss


def test_accumulation_does_not_change_the_update(plc_words: list[str]) -> None:
    """Answers differ in length, so a mean of the micro-batches' means would be another loss."""
    results = []
    for size, steps in ((4, 1), (1, 4)):
        trainer = build(
            plc_words,
            "max_steps=1",
            "train_sampling_strategy=sequential",
            f"per_device_train_batch_size={size}",
            f"gradient_accumulation_steps={steps}",
            "optim=sgd",  # Adam would hide a wrong scale
            "lr_scheduler_type=constant",
            "max_grad_norm=0",
        )
        loss = trainer.train().training_loss
        results.append((loss, copy_of(trainer)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for name, tensor in results[0][1].items():
        torch.testing.assert_close(tensor, results[1][1][name], rtol=1e-4, atol=1e-6, msg=name)


def test_the_loss_is_the_mean_over_target_tokens(plc_words: list[str]) -> None:
    trainer = build(plc_words, "max_steps=1", "train_sampling_strategy=sequential", "gradient_accumulation_steps=2")
    batches = [trainer.data_collator([trainer.train_dataset[i] for i in range(k, k + 4)]) for k in (0, 4)]
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in batches:
            labels = batch.pop("labels")
            batch.pop("sample_ids")
            logits = trainer.model(**batch).logits[:, :-1]
            wanted = labels[:, 1:] != -100
            total += F.cross_entropy(logits[wanted], labels[:, 1:][wanted], reduction="sum").item()
            count += int(wanted.sum())
    assert trainer.train().training_loss == pytest.approx(total / count, rel=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_samples(plc_words: list[str]) -> None:
    trainer = build(plc_words, "train_sampling_strategy=sequential")
    with torch.no_grad():
        next(p for name, p in trainer.model.named_parameters() if "lm_head" in name).fill_(float("nan"))
    with pytest.raises(RunError, match="loss is nan after step 0") as caught:
        trainer.train()
    assert all(key in str(caught.value) for key in trainer.train_dataset["sample_id"][:4])


@pytest.mark.parametrize("broken", ["loss", "gradient norm"])
def test_what_is_not_finite_is_told_on_disk(broken: str, plc_words: list[str], tmp_path: Path) -> None:
    """The samples of the micro-batch for a loss, of the whole update for a gradient; nothing is learned from it."""
    trainer = build(plc_words, "train_sampling_strategy=sequential", "gradient_accumulation_steps=2")
    name, parameter = next((n, p) for n, p in trainer.model.named_parameters() if "compressor" in n and p.requires_grad)
    if broken == "loss":
        with torch.no_grad():
            parameter.fill_(float("inf"))
    else:
        parameter.register_hook(lambda gradient: gradient * float("nan"))
    before = copy_of(trainer)
    with pytest.raises(RunError, match=f"^{broken} is nan after step 0, samples "):
        trainer.train()
    told = json.loads((tmp_path / "run" / "nonfinite-rank0.json").read_text())
    count = 4 if broken == "loss" else 8
    assert told == {"after_step": 0, broken: "nan", "sample_ids": trainer.train_dataset["sample_id"][:count]}
    for name, tensor in copy_of(trainer).items():
        assert torch.equal(tensor, before[name]), name


def test_a_batch_without_a_usable_answer_has_no_loss(plc_words: list[str], toy_data: Path, tmp_path: Path) -> None:
    images = shutil.copytree(toy_data / "images", tmp_path / "images")
    for number in range(4):
        (images / f"{number}.png").write_text("gone")
    words = [word.replace(str(toy_data / "images"), str(images)) for word in plc_words]
    words += ["on_bad_sample=skip", "max_bad_fraction=1", "train_sampling_strategy=sequential", "eval_strategy=steps"]
    trainer = build(words, "eval_steps=2", "per_device_eval_batch_size=4", "lr_scheduler_type=constant")
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()]
    assert lines[0]["loss"] == lines[0]["grad_norm"] == lines[0]["samples_per_s"] == 0
    assert lines[1]["loss"] > 0
    assert len((tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()) == 4
    (evaluated,) = [line for line in lines if "eval_loss" in line]
    rows = list(trainer.eval_dataset)[4:]
    clean = build([*plc_words, "on_bad_sample=raise"], f"output_dir={tmp_path / 'clean'}")
    clean.model.load_state_dict(trainer.model.state_dict())
    clean.eval_dataset = trainer.eval_dataset.select(range(4, 16))
    assert len(rows) == 12
    assert evaluated["eval_exact_match"] == clean.evaluate()["eval_exact_match"]


def test_a_few_steps_are_profiled(plc_words: list[str], tmp_path: Path) -> None:
    build(plc_words, "max_steps=4", "profile_steps=1").train()
    (trace,) = (tmp_path / "run" / "profile").glob("*.json")
    events = json.loads(trace.read_text())["traceEvents"]
    assert any(event.get("name") == "aten::scaled_dot_product_attention" for event in events)


def test_text_alone_trains_too(plc_words: list[str], tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "what is the digit ?"}, {"from": "gpt", "value": "7"}]
    (tmp_path / "text.json").write_text(json.dumps([{"conversations": turns}] * 4))
    trainer = build(plc_words, f"train_data=[{{annotations: {tmp_path / 'text.json'}}}]", "max_steps=1")
    assert trainer.train().training_loss > 0


# ---- evaluation


def test_exact_matches_is_greedy_decoding(plc_words: list[str]) -> None:
    """Of answers that the model would give (made up by it) and of those that it would not."""
    trainer = build(plc_words)
    model, collator = trainer.model.eval(), trainer.data_collator
    rows = [dict(trainer.train_dataset[i]) for i in range(8)]
    generated = model.generate(**collator.prompts(rows), max_new_tokens=2, min_new_tokens=2, do_sample=False)
    words = collator.processor.batch_decode(generated[:, -2:])
    for row, answer in zip(rows[:5], words, strict=False):
        messages = json.loads(row["messages"])
        messages[1]["content"][0]["text"] = answer
        row["messages"] = json.dumps(messages)
    batch = collator(rows)
    labels = batch.pop("labels")
    batch.pop("sample_ids")
    labels[labels == collator.processor.tokenizer.eos_token_id] = -100  # the model was not asked when to stop
    with torch.no_grad():
        logits = model(**batch).logits
    assert exact_matches(logits, labels).tolist() == [1] * 5 + [0] * 3


def test_evaluation_reports_the_accuracy_of_greedy_answers(plc_words: list[str]) -> None:
    trainer = build(plc_words, "max_steps=20", "lr_scheduler_type=constant", "per_device_eval_batch_size=3")
    before = trainer.evaluate()["eval_exact_match"]
    trainer.train()
    metrics = trainer.evaluate()
    collator, right = trainer.data_collator, 0
    for row in trainer.eval_dataset:
        prompt = collator.prompts([row])
        (tokens,) = trainer.model.generate(**prompt, max_new_tokens=8, do_sample=False)
        words = collator.processor.decode(tokens[prompt["input_ids"].shape[1] :]).split()
        right += words == [*row["answer"].split(), "</s>"]
    assert metrics["eval_exact_match"] == right / len(trainer.eval_dataset)
    assert metrics["eval_exact_match"] > before
    assert metrics["eval_loss"] > 0


# ---- what is left behind


def test_the_log_has_every_figure(plc_words: list[str], tmp_path: Path) -> None:
    trainer = train(*arguments([*plc_words, "eval_strategy=steps", "eval_steps=2"]))
    lines = [json.loads(line) for line in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "lr" in line]
    assert [line["step"] for line in steps] == [1, 2]
    rates = {"lora": 1e-2, "compressor": 2e-2, "projector": 3e-2}
    assert [line["lr"] for line in steps] == [rates, {name: rate / 2 for name, rate in rates.items()}]
    for line in steps:
        assert line["mfu"] is None
        assert line["visual_tokens_per_sample"] == 16
        assert 0 <= line["padding_fraction"] < 0.5
        assert line["peak_memory_bytes"] > 1e6
        assert line["samples_per_s"] == pytest.approx(4 / line["step_s"])
        assert min(line["loss"], line["grad_norm"], line["tokens_per_s"]) > 0
        parts = line["data_s"] + line["forward_backward_s"] + line["rest_s"]
        assert parts == pytest.approx(line["step_s"])
        assert min(line["data_s"], line["forward_backward_s"], line["rest_s"]) >= 0
    assert trainer.state.global_step == 2
    metrics = trainer.evaluate()
    (evaluated,) = [line for line in lines if "eval_loss" in line]
    assert evaluated["step"] == 2
    assert evaluated["eval_exact_match"] == metrics["eval_exact_match"]
    assert evaluated["eval_loss"] == pytest.approx(metrics["eval_loss"])


def logits_of(model: Any, trainer: PlcTrainer) -> torch.Tensor:
    batch = trainer.data_collator(list(trainer.train_dataset)[:4])
    batch.pop("sample_ids")
    with torch.no_grad():
        return model.eval()(**batch).logits


@pytest.mark.parametrize("lora", ["lora={r: 4, lora_alpha: 8}", "lora=null"])
def test_what_was_trained_comes_back(plc_words: list[str], tmp_path: Path, lora: str) -> None:
    trainer = train(*arguments([*plc_words, lora]))
    expected = logits_of(trainer.model, trainer)
    checkpoint = Checkpoint.open(tmp_path / "run" / "final")
    model, processor = checkpoint.model(), checkpoint.processor()
    torch.testing.assert_close(logits_of(model, trainer), expected, rtol=0, atol=1e-6)
    if "null" not in lora:
        merged = model.merge_and_unload()
        torch.testing.assert_close(logits_of(merged, trainer), expected, rtol=0, atol=1e-5)
    assert processor.token_budget == 16
    assert processor.chat_template == trainer.processing_class.chat_template
    checkpoint = Checkpoint.open(tmp_path / "run" / "final", token_budget=8)
    smaller, processor = checkpoint.model(), checkpoint.processor()
    assert processor.token_budget == smaller.config.token_budget == 8


def test_training_goes_on_from_an_adapter(
    plc_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(*arguments(plc_words))
    expected = logits_of(first.model, first)
    words = [*plc_words, f"model={tmp_path / 'run' / 'final'}", f"output_dir={tmp_path / 'second'}"]
    second = build(words)
    torch.testing.assert_close(logits_of(second.model, second), expected, rtol=0, atol=1e-5)
    second.train()
    second.save_model(str(tmp_path / "second" / "final"))
    model = Checkpoint.open(tmp_path / "second" / "final").model()
    torch.testing.assert_close(logits_of(model, second), logits_of(second.model, second), rtol=0, atol=1e-5)
    monkeypatch.setattr("train.backbones.checkpoint.is_deepspeed_zero3_enabled", lambda: True)
    with pytest.raises(ConfigError, match="ZeRO-3 cannot start from an adapter"):
        build(words)


def test_what_the_call_leaves_out_is_as_the_checkpoint_says(
    plc_words: list[str], tiny_llava: Path, tmp_path: Path
) -> None:
    named = ("token_budget=", "compressor_num_attention_heads=")
    bare = [word for word in plc_words if not word.startswith(named)]
    keys = ["token_budget=12", "compressor_num_attention_heads=2", "region_ratio=4", "compressor_type=no_queries"]
    keys += ["frame=squashed", "region_grid=[4, 2]", "region_scale=1.5", "region_min_side=0.25"]
    train(*arguments([*bare, *keys, "max_steps=1"]))

    def settings(*words: str) -> tuple:
        trainer = build(bare, *words)
        config, processor = trainer.model.config, trainer.processing_class
        return (
            *[getattr(config, key) for key in COMPRESSOR_KEYS],
            processor.token_budget,
            *(processor.frame, processor.region_grid, processor.region_scale, processor.region_min_side),
        )

    final = f"model={tmp_path / 'run' / 'final'}"
    assert settings(final) == ("no_queries", 12, 4.0, 2, 12, "squashed", (4, 2), 1.5, 0.25)
    changed = settings(final, "token_budget=8", "region_grid=[]", "region_scale=1")
    assert changed == ("no_queries", 8, 4.0, 2, 8, "squashed", None, 1.0, 0.25)
    plain = CropLlavaConfig.from_pretrained(tiny_llava)
    stored = tuple(getattr(plain, key) for key in COMPRESSOR_KEYS)
    assert settings(f"model={tiny_llava}") == (*stored, plain.token_budget, "padded_square", (8, 8), 1.0, 0.0)


@pytest.mark.parametrize("lost", ["compressor.", "multi_modal_projector.", "lora_B", "half the file"])
def test_a_damaged_adapter_is_refused(plc_words: list[str], tmp_path: Path, lost: str) -> None:
    train(*arguments([*plc_words, "max_steps=1"]))
    folder = tmp_path / "run" / "final"
    file = folder / "adapter_model.safetensors"
    if lost == "half the file":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    else:
        save_file({name: tensor for name, tensor in load_file(file).items() if lost not in name}, file)
    with pytest.raises(ConfigError, match=f"^model {folder}: the adapter is damaged: ") as caught:
        Checkpoint.open(folder).model()
    assert "\n" not in str(caught.value)


def test_an_image_processor_of_unknown_geometry_is_refused(tiny_llava: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llava, tmp_path / "other")
    stored = json.loads((folder / "processor_config.json").read_text())
    stored["image_processor"]["image_processor_type"] = "SiglipImageProcessor"
    (folder / "processor_config.json").write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match=f"^model {folder}: .*SiglipImageProcessor"):
        Checkpoint.open(folder).processor()


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"model {tmp_path}"):
        Checkpoint.open(tmp_path)
    for name in ("config.json", "adapter_config.json"):
        (tmp_path / name).write_text('{"model_type": "llama"}' if name == "config.json" else "{}")
        with pytest.raises(ConfigError, match=r"'llama' is none of crop_llava, llava, qwen2_vl$"):
            Checkpoint.open(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigError, match=f"model {tmp_path}: no config.json"):
        Checkpoint.open(tmp_path)


def test_bf16_keeps_what_trains_in_fp32_and_tells_the_utilisation(
    plc_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.engine.meter.peak_flops", lambda: 1e9)
    words = ["max_steps=1", "train_sampling_strategy=sequential"]
    expected = build(plc_words, *words).train().training_loss
    trainer = build(plc_words, *words, "bf16=true", "picture_steps=1")
    for name, parameter in trainer.model.named_parameters():
        assert parameter.dtype == (torch.float32 if parameter.requires_grad else torch.bfloat16), name
    assert trainer.train().training_loss == pytest.approx(expected, rel=0.02)
    (line,) = [json.loads(x) for x in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines() if '"lr"' in x]
    shape = trainer.meter.shape
    texts = [row["length"] - 16 for row in list(trainer.train_dataset)[:4]]
    flops = sum(shape.training_step(text, images=1).flops for text in texts)
    adapter = sum(p.numel() for name, p in trainer.model.named_parameters() if "lora_" in name)
    flops += sum(3 * 2 * (text + 16) * adapter for text in texts)  # forward, and two gradients: all of it trains
    assert line["mfu"] == pytest.approx(flops / line["step_s"] / 1e9)
    assert list((tmp_path / "run" / "pictures").iterdir())
