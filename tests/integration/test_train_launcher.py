"""`train.plc` under the real deepspeed launcher, two processes on the CPU, for every preset that the project ships.

Each preset is launched from the start, and forked once more from the first run's checkpoint. What does not regard the
launcher is forked alone (see runs.py). One process without DeepSpeed is what all of it is compared with.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from tests.integration.runs import ROOT, evaluations, fork, launch, logged, run_alone, trained_tensors
from train.backbones.checkpoint import Checkpoint
from train.checkpoints.folders import MANIFEST
from train.export import main as export
from train.localizer import main as train_localizer
from train.publishing.proof import ADAPTER

STEPS, SAVED = 6, 5  # an epoch has four: a resumed run goes on in the middle of the second
pytestmark = pytest.mark.integration


def words_of_a_run(plc_words: Sequence[str], run: Path) -> list[str]:
    return [
        *plc_words,
        f"output_dir={run}",
        f"max_steps={STEPS}",
        "learning_rate=1e-3",
        "compressor_learning_rate=2e-3",
        "projector_learning_rate=3e-3",
        "warmup_steps=2",
        "save_strategy=steps",
        f"save_steps={SAVED}",
    ]


@pytest.fixture(scope="module")
def alone(training_words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One process without DeepSpeed, which all presets but one are compared with."""
    run = tmp_path_factory.mktemp("alone")
    run_alone([*words_of_a_run(training_words, run), "per_device_train_batch_size=4"])
    return run


@pytest.mark.parametrize("preset", ["zero0", "zero2", "zero2_offload", "zero3"])
def test_two_processes_equal_one_and_a_resumed_run_the_uninterrupted(
    preset: str, alone: Path, plc_words: list[str], tiny_llava: Path, tmp_path: Path
) -> None:
    """One preset starts from a base model, so that the compressor is new."""
    run = tmp_path / preset
    if preset == "zero2":
        plc_words, alone = [*plc_words, f"model={tiny_llava}", "gradient_checkpointing=true"], tmp_path / "alone"
        run_alone([*words_of_a_run(plc_words, alone), "per_device_train_batch_size=4"])
    words = [
        *words_of_a_run(plc_words, run),
        f"deepspeed=configs/deepspeed/{preset}.json",
        "per_device_train_batch_size=2",
    ]
    finished = launch(words)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout.count("what trains") == 1

    expected = logged(alone)
    assert [line["step"] for line in logged(run)] == list(range(1, STEPS + 1))
    for line, other in zip(logged(run), expected, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert line["lr"] == pytest.approx(other["lr"])
        if preset != "zero0":  # where DeepSpeed does not tell
            assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    whole = trained_tensors(run / "final")
    for name, tensor in trained_tensors(alone / "final").items():
        torch.testing.assert_close(whole[name], tensor, rtol=0, atol=1e-5, msg=name)

    check_export(preset, run / f"checkpoint-{SAVED}", alone / f"checkpoint-{SAVED}", tmp_path)

    again = fork([*words, f"resume_from_checkpoint={run}/checkpoint-{SAVED}"])
    assert again.returncode == 0, again.stderr[-3000:]
    assert f"resuming at step {SAVED} of {STEPS}" in again.stdout
    for line, other in zip(logged(run), expected, strict=True):  # all but the last are the first run's
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert line["lr"] == pytest.approx(other["lr"])
    for name, tensor in trained_tensors(run / "final").items():
        torch.testing.assert_close(tensor, whole[name], rtol=0, atol=1e-6, msg=name)

    if preset == "zero0":
        check_merge(run / "final", tmp_path)


def check_export(preset: str, checkpoint: Path, alone: Path, tmp_path: Path) -> None:
    """An export of a checkpoint in the middle has the weights of the run without DeepSpeed; its own proof the logits.

    LoRA apart under ZeRO-2, merged elsewhere; of ZeRO-3 from the engine's states alone.
    """
    source, merge = tmp_path / "source" / checkpoint.name, preset != "zero2"
    without = shutil.ignore_patterns("adapter_model.safetensors", MANIFEST) if preset == "zero3" else None
    shutil.copytree(checkpoint, source, ignore=without)
    export([str(source), str(tmp_path / "export"), f"merge={str(merge).lower()}", "max_shard_size=100KB"])
    assert len(list((tmp_path / "export").glob("model-*.safetensors"))) > 1
    exported = Checkpoint.open(tmp_path / "export").model()
    if not merge:
        adapter = PeftModel.from_pretrained(exported, tmp_path / "export" / ADAPTER, autocast_adapter_dtype=False)
        exported = adapter.merge_and_unload()
    expected = Checkpoint.open(alone).merged()
    weights = exported.state_dict()
    for name, tensor in expected.state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=1e-5, msg=name)


def check_merge(folder: Path, tmp_path: Path) -> None:
    """The adapter merged into its base answers as it did beside it, also after saving and loading."""
    checkpoint = Checkpoint.open(folder)
    model, processor = checkpoint.model(), checkpoint.processor()
    ids = processor.tokenizer("what is the digit ? 7", return_tensors="pt")
    images = {"pixel_values": torch.randn(1, 3, 32, 32), "region_mask": torch.arange(64)[None] < 9}
    placeholders = torch.full((1, 16), processor.image_token_id)
    inputs = {"input_ids": torch.cat([placeholders, ids["input_ids"]], dim=1), **images}
    with torch.no_grad():
        expected = model(**inputs).logits
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(**inputs).logits, expected, rtol=0, atol=1e-5)
        merged.save_pretrained(tmp_path / "merged")
        processor.save_pretrained(tmp_path / "merged")
        again = Checkpoint.open(tmp_path / "merged").model()
        torch.testing.assert_close(again(**inputs).logits, expected, rtol=0, atol=1e-5)


def test_a_process_without_an_image_stays_in_step(plc_words: list[str], toy_data: Path, tmp_path: Path) -> None:
    """The second process gets text alone, to train on and in evaluation.

    The weights are spread and stay so when they are saved, and nothing but compressor and projector trains.
    """
    preset = json.loads((ROOT / "configs/deepspeed/zero3.json").read_text())
    preset["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = False
    (tmp_path / "deepspeed.json").write_text(json.dumps(preset))
    records = json.loads((toy_data / "data.json").read_text())[:4]
    for record in records[2:]:
        del record["image"]
        record["conversations"][0]["value"] = record["conversations"][0]["value"].replace("<image>", "")
    (tmp_path / "data.json").write_text(json.dumps(records))
    source = f"[{{annotations: {tmp_path / 'data.json'}, image_root: {toy_data / 'images'}}}]"
    words = [
        *words_of_a_run(plc_words, tmp_path / "alone"),
        f"train_data={source}",
        f"eval_data={source}",
        "eval_strategy=steps",
        "eval_steps=1",
        "per_device_eval_batch_size=2",
        "train_sampling_strategy=sequential",
        "save_strategy=no",
        "max_steps=2",
        "warmup_steps=0",
        "lora=null",
    ]
    trainer = run_alone([*words, "per_device_train_batch_size=4"])
    finished = fork(
        [
            *words,
            f"output_dir={tmp_path / 'two'}",
            f"deepspeed={tmp_path / 'deepspeed.json'}",
            "per_device_train_batch_size=2",
        ]
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    for line, other in zip(logged(tmp_path / "two"), logged(tmp_path / "alone"), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert line["visual_tokens_per_sample"] == other["visual_tokens_per_sample"] == 8
    evaluated, expected = evaluations(tmp_path / "two"), evaluations(tmp_path / "alone")
    assert [line["step"] for line in evaluated] == [1, 2]
    for line, other in zip(evaluated, expected, strict=True):
        assert line["eval_loss"] == pytest.approx(other["eval_loss"], rel=1e-5)
        assert line["eval_exact_match"] == other["eval_exact_match"]
    assert not list((tmp_path / "two" / "final").glob("*.safetensors"))
    model = Checkpoint.open(tmp_path / "two" / "final").with_weights(tmp_path / "whole").model()
    for name, tensor in trainer.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=0, atol=1e-5, msg=name)


def write_mixture(toy_data: Path, folder: Path) -> str:
    """`train_data` of one image, several, text alone - as long as a packed row - and two images that do not open."""
    shutil.copytree(toy_data / "images", folder / "images")
    (folder / "images" / "cut.png").write_bytes((folder / "images" / "0.png").read_bytes()[:90])
    records = json.loads((toy_data / "data.json").read_text())
    answer = {"from": "gpt", "value": "red"}
    for number in range(5):  # the longest first, two rows an update: the fifth meets images
        records.append({"conversations": [{"from": "human", "value": "what is the " * 35}, answer]})
        asked = {"from": "human", "value": "<image><image> how many ?"}
        records.append({"image": [f"{number}.png", f"{number + 1}.png"], "conversations": [asked, answer]})
    for name in ("gone.png", "cut.png"):
        records.insert(7, {"image": name, "conversations": [{"from": "human", "value": "what is here ?"}, answer]})
    (folder / "data.json").write_text(json.dumps(records))
    files = {
        "image_root": folder / "images",
        "regions": toy_data / "regions" / "toy",
        "annotations": folder / "data.json",
    }
    return f"train_data=[{json.dumps({key: str(path) for key, path in files.items()})}]"


def test_packed_rows_and_bad_samples_keep_processes_in_step(
    plc_words: list[str], toy_data: Path, tmp_path: Path
) -> None:
    """Rows of text alone on one process, a broken image on one, a missing one, images decoded by worker processes."""
    words = [
        *words_of_a_run(plc_words, tmp_path / "alone"),
        write_mixture(toy_data, tmp_path),
        "eval_data=[]",
        "pack_length=128",
        "max_length=128",
        "on_bad_sample=skip",
        "max_bad_fraction=0.1",
        "train_sampling_strategy=sequential",
        "dataloader_num_workers=1",
        "save_strategy=no",
    ]
    trainer = run_alone([*words, "per_device_train_batch_size=2"])
    rows = [[bool(sample["images"]) for sample in row] for row in trainer.train_dataset]
    updates = list(zip(rows[::2], rows[1::2], strict=True))[:STEPS]
    assert any(any(one) != any(other) for one, other in updates)  # one process has text alone, the other images
    two = tmp_path / "two"
    more = [f"output_dir={two}", "deepspeed=configs/deepspeed/zero2.json", "per_device_train_batch_size=1"]
    finished = fork([*words, *more, "profile_steps=1"])
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert [line["step"] for line in logged(two)] == list(range(1, STEPS + 1))
    for line, other in zip(logged(two), logged(tmp_path / "alone"), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
    expected = trained_tensors(tmp_path / "alone" / "final")
    for name, tensor in trained_tensors(two / "final").items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5, msg=name)
    quarantined = (two / "quarantine.jsonl").read_text()
    assert quarantined == (tmp_path / "alone" / "quarantine.jsonl").read_text()
    assert sorted(Path(json.loads(line)["image"]).name for line in quarantined.splitlines()) == ["cut.png", "gone.png"]
    assert len(list((two / "profile").glob("*.json"))) == 2  # a trace a process


def test_a_wrong_call_ends_the_launcher_with_status_2(plc_words: list[str]) -> None:
    refused = launch([*plc_words, "deepspeed=configs/deepspeed/zero2.json", "learning_rat=1"])
    assert refused.returncode == 2
    assert "command line: unknown key 'learning_rat'" in refused.stderr
    assert "Traceback" not in refused.stderr


def words_of_a_localizer(model: Path, data: Path) -> list[str]:
    return [
        f"model={model}",
        f"chat_template={ROOT / 'configs/localizer/qwen2_vl.jinja'}",
        f"train_data=[{{annotations: {data / 'data.json'}, image_root: {data / 'images'}}}]",
        "max_steps=3",
        "learning_rate=1e-3",
        "projector_learning_rate=3e-3",
        "logging_steps=1",
        "save_strategy=no",
        "report_to=none",
        "use_cpu=true",
    ]


def test_a_localizer_in_two_processes_is_the_one_of_one(tiny_qwen2_vl: Path, toy_data: Path, tmp_path: Path) -> None:
    """Adapter and merger of Qwen2-VL, activations recomputed."""
    words = [*words_of_a_localizer(tiny_qwen2_vl, toy_data), "lora={r: 4, lora_alpha: 8}"]
    train_localizer([*words, f"output_dir={tmp_path / 'alone'}", "per_device_train_batch_size=4"])
    more = ["deepspeed=configs/deepspeed/zero2.json", "gradient_checkpointing=true", "per_device_train_batch_size=2"]
    finished = fork([*words, f"output_dir={tmp_path / 'two'}", *more], "train.localizer")
    assert finished.returncode == 0, finished.stderr[-3000:]
    for line, other in zip(logged(tmp_path / "two"), logged(tmp_path / "alone"), strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert line["visual_tokens_per_sample"] == other["visual_tokens_per_sample"]
    expected = Checkpoint.open(tmp_path / "alone" / "final").merged().state_dict()
    for name, tensor in Checkpoint.open(tmp_path / "two" / "final").merged().state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-5, msg=name)


def test_an_export_of_a_localizer_trained_whole_whose_weights_stay_spread(
    tiny_qwen2_vl: Path, toy_data: Path, tmp_path: Path
) -> None:
    """ZeRO-3's states alone become the weights of one process, in the type that the configuration says."""
    words = [*words_of_a_localizer(tiny_qwen2_vl, toy_data), "lora=null", "full=true"]
    train_localizer([*words, f"output_dir={tmp_path / 'alone'}", "per_device_train_batch_size=4"])
    preset = json.loads((ROOT / "configs/deepspeed/zero3.json").read_text())
    preset["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] = False
    (tmp_path / "deepspeed.json").write_text(json.dumps(preset))
    final, more = tmp_path / "two" / "final", [f"deepspeed={tmp_path / 'deepspeed.json'}"]
    finished = fork([*words, f"output_dir={final.parent}", *more, "per_device_train_batch_size=2"], "train.localizer")
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert not list(final.glob("*.safetensors"))
    expected = Checkpoint.open(tmp_path / "alone" / "final").merged().state_dict()
    for dtype in ("float32", "bfloat16"):
        config = json.loads((final / "config.json").read_text())
        (final / "config.json").write_text(json.dumps({**config, "dtype": dtype}))
        export([str(final), str(tmp_path / dtype)])
        for name, tensor in Checkpoint.open(tmp_path / dtype).merged("auto").state_dict().items():
            assert tensor.dtype == getattr(torch, dtype)
            rtol = 0 if dtype == "float32" else 2**-8
            torch.testing.assert_close(tensor.float(), expected[name], rtol=rtol, atol=1e-5, msg=name)
