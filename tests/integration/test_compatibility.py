"""Hold what this version does with the files of commit a91c217 against what that commit did with them.

These are runs, an export, sidecars and configurations: tests/fixtures/a91c217/make.py tells what is there and how it
was made. Users have such folders, and a change that fails here breaks them. Nearly everything goes through doors that
users know: `python -m`, and transformers' Auto classes.
"""

import dataclasses
import importlib
import json
import os
import re
import runpy
import shutil
import socket
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

# All that is imported of this project, for what no public door shows: a checkpoint's logits, rows as training has them.
from data_prep.schema.sample import read_regions
from train.backbones.checkpoint import Checkpoint

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "a91c217"
EXPECTED = FIXTURES / "expected"
# CPUs of other types, and other versions of torch, add up in another order and round otherwise, in every layer. On one
# CPU ATEN_CPU_CAPABILITY and MKL_ENABLE_INSTRUCTIONS, at SSE4_2, AVX2 and AVX512, made up to 3.3e-6 of the largest
# logit: to the bit or to 1e-6 would be too strict. One number of a matrix that is off by 0.05 makes 5e-3 or more, a
# lost region 1. Answers are compared exactly: between the two likeliest tokens lie 4e-4 of the largest logit or more.
LOGITS = 3e-5  # of the largest
# AdamW divides by the root of small second moments, which makes more of the same rounding: up to 8e-6 were seen, where
# the step that is taken again moves weights by 1e-2.
WEIGHTS = 1e-4
pytestmark = pytest.mark.integration

Door = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy the fixtures to a user's folder, with what this version ships in configs/deepspeed, and go there."""
    copy = shutil.copytree(FIXTURES, tmp_path / "work", ignore=shutil.ignore_patterns("make.py", "expected"))
    (copy / "configs" / "deepspeed").symlink_to(ROOT / "configs" / "deepspeed")
    monkeypatch.chdir(copy)
    return copy


@pytest.fixture
def door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Door:
    """Give a call that runs `python -m MODULE WORD...` in this process, which has imported everything already.

    It returns what was printed, to either stream, and fails where the program ends with another status than expected.
    """
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", [*sys.path])  # that folder is added to it

    def call(module: str, *words: str, status: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", [module, *words])
        capsys.readouterr()
        ended = 0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*found in sys.modules", category=RuntimeWarning)
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as caught:
                ended = int(caught.code or 0)
        printed = "".join(capsys.readouterr())
        if ended != status:  # no AssertionError, which a test may expect
            pytest.fail(f"exit status {ended}: {printed[-3000:]}")
        return printed

    return call


def read_json(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())


def assert_same_logits(computed: torch.Tensor, name: str) -> None:
    """Hold logits against those that the folder of that name had."""
    expected = load_file(EXPECTED / "logits.safetensors")[name]
    torch.testing.assert_close(computed, expected, rtol=0, atol=LOGITS * expected.abs().max().item())


# ---- weights

RUNS = [f"{run}/{name}" for run in ("checkpoint", "adapter", "uniform") for name in ("final", "checkpoint-2")]


def logits_of(model: Any, processor: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Compute the logits of the batch in expected/batch.json; return the processor's inputs too."""
    batch = read_json(EXPECTED / "batch.json")
    images = [Image.open(FIXTURES / path) for path in batch["images"]]
    inputs = processor(images=images, text=batch["text"], regions=batch["regions"], padding=True, return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs).logits, dict(inputs)


@pytest.mark.parametrize("name", [*RUNS, "region_only/final", "spread/final"])
def test_a_checkpoint_has_the_logits_that_it_had(name: str, folder: Path) -> None:
    """Load every kind of checkpoint: whole, an adapter on its base, weights in the engine's states alone."""
    checkpoint = Checkpoint.open(name).with_weights(folder / "whole")
    computed, inputs = logits_of(checkpoint.model(), checkpoint.processor())
    assert_same_logits(computed, name)
    for key in ("input_ids", "region_mask"):
        assert torch.equal(inputs[key], load_file(EXPECTED / "logits.safetensors")[key]), key


def test_other_weights_do_not_pass_for_the_same(folder: Path) -> None:
    """Change one number of one matrix: the comparison has to see it."""
    file = folder / "checkpoint" / "final" / "model.safetensors"
    weights = load_file(file)
    name = next(name for name in sorted(weights) if name.endswith("q_proj.weight") and "compressor" not in name)
    weights[name][0, 0] += 0.05
    save_file(weights, file, metadata={"format": "pt"})
    checkpoint = Checkpoint.open("checkpoint/final")
    computed, _ = logits_of(checkpoint.model(), checkpoint.processor())
    with pytest.raises(AssertionError, match="not close"):
        assert_same_logits(computed, "checkpoint/final")


# What a stranger does with an export, and nothing of ours.
STRANGER = """
import json, sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("crop_model", "data_prep", "train"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

batch = json.load(open(sys.argv[1]))
model = AutoModelForImageTextToText.from_pretrained("export", trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained("export", trust_remote_code=True)
images = [Image.open(path) for path in batch["images"]]
inputs = processor(images=images, text=batch["text"], regions=batch["regions"], padding=True, return_tensors="pt")
with torch.inference_mode():
    logits = model(**inputs).logits
assert not {"crop_model", "data_prep", "train"} & set(sys.modules)
save_file({**inputs, "logits": logits}, sys.argv[2])
"""


def test_an_export_has_the_logits_that_it_had_without_this_project(folder: Path) -> None:
    """Load it by its own source files of then, with the transformers of now."""
    out = folder / "computed.safetensors"
    environment = {**os.environ, "HF_MODULES_CACHE": str(folder / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", STRANGER, str(EXPECTED / "batch.json"), str(out)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    computed = load_file(out)
    assert_same_logits(computed["logits"], "export")
    for key in ("input_ids", "region_mask"):
        assert torch.equal(computed[key], load_file(EXPECTED / "logits.safetensors")[key]), key


# ---- programs


def test_an_adapter_of_then_is_exported_to_the_same_weights(folder: Path, door: Door) -> None:
    """Export with an evaluation of then for the card; the program itself proves that the logits are the adapter's."""
    evaluation = EXPECTED / "evaluation" / "evaluation.json"
    printed = door("train.export", "adapter/final", "fresh", f"evaluation={evaluation}")
    assert "loads without this project" in printed
    exported, expected = (load_file(folder / name / "model.safetensors") for name in ("fresh", "export"))
    assert exported.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(exported[name], tensor, rtol=1e-5, atol=1e-6, msg=name)


def test_an_export_of_then_gives_the_same_answers(folder: Path, door: Door) -> None:
    """Compare what is said to three questions, and the regions that they were asked with."""
    printed = door("train.answer", "export", "picture.png", "configs/answer.yaml")
    said = [line.partition(";")[0] for line in printed.splitlines() if line.startswith(("Q: ", "A: ", "   region"))]
    assert said == (EXPECTED / "answers.txt").read_text().splitlines()
    assert (folder / "picture.png").is_file()


def test_an_evaluation_has_the_same_rows_and_predictions(folder: Path, door: Door) -> None:
    """Compare base, checkpoints, adapter, export; compressors, methods before and inside the LLM; region sources."""
    door("train.evaluate", "configs/evaluate.yaml")
    then, now = EXPECTED / "evaluation", folder / "evaluation"
    rows, expected_rows = (read_json(where / "evaluation.json")["rows"] for where in (now, then))
    assert len(rows) == len(expected_rows)
    measured = ("macs", "flops", "kv_bytes", "ttft_s")  # costs, by formula or clock
    for row, expected_row in zip(rows, expected_rows, strict=True):
        assert {key: row[key] for key in expected_row if key not in measured} == {
            key: value for key, value in expected_row.items() if key not in measured
        }
    assert len({row["accuracy"] for row in rows}) > 2  # they can be told apart
    files = sorted(then.glob("predictions-*.jsonl"))
    assert len(files) == len(rows)
    for file in files:
        lines, expected_lines = (
            [json.loads(line) for line in path.read_text().splitlines()] for path in (now / file.name, file)
        )
        for line, expected_line in zip(lines, expected_lines, strict=True):
            assert {key: line[key] for key in expected_line} == expected_line


# ---- runs that go on


def words_of(run: str, *more: str) -> list[str]:
    """List the words of a call that goes on with a run."""
    return ["configs/plc.yaml", f"output_dir={run}", *more, "resume_from_checkpoint=last"]


UNIFORM = words_of("uniform", "lora=null", "compressor_type=uniform", "deepspeed=null")


def assert_ends_as_then(folder: Path, run: str, file: str) -> None:
    """Hold the weights that a resumed run ended with against those of the undisturbed run of then."""
    weights, expected = (load_file(where / run / "final" / file) for where in (folder, FIXTURES))
    before = load_file(FIXTURES / run / "checkpoint-2" / file)
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(weights[name], tensor, rtol=0, atol=WEIGHTS, msg=name)
    assert max((expected[name] - before[name]).abs().max().item() for name in before) > 50 * WEIGHTS
    logged, then = (
        json.loads((where / run / "train_log.jsonl").read_text().splitlines()[-2]) for where in (folder, FIXTURES)
    )
    assert logged["step"] == then["step"] == 3
    assert logged["loss"] == pytest.approx(then["loss"], rel=1e-4)
    assert logged["lr"] == then["lr"]


def test_a_run_with_an_adapter_goes_on_to_the_same_end(folder: Path, door: Door) -> None:
    """Go on from the Trainer's own states."""
    shutil.rmtree(folder / "adapter" / "final")
    printed = door("train.plc", *words_of("adapter", "deepspeed=null"))
    assert "resuming at step 2 of 3" in printed
    assert "with changes" not in printed
    assert_ends_as_then(folder, "adapter", "adapter_model.safetensors")


def test_a_run_under_deepspeed_goes_on_to_the_same_end(folder: Path) -> None:
    """Go on from the engine's states, by the preset that the configuration names, in the launcher's one process."""
    shutil.rmtree(folder / "checkpoint" / "final")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "train.plc", *words_of("checkpoint", "lora=null")],
        cwd=folder,
        env={**os.environ, **address, **launched, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resuming at step 2 of 3" in done.stdout
    assert_ends_as_then(folder, "checkpoint", "model.safetensors")


def test_a_whole_run_without_deepspeed_goes_on_to_the_same_end(folder: Path, door: Door) -> None:
    """Resume where nothing but a whole model's file has the trained weights: at a91c217 the base's took their place."""
    shutil.rmtree(folder / "uniform" / "final")
    door("train.plc", *UNIFORM)
    assert_ends_as_then(folder, "uniform", "model.safetensors")


def test_another_run_does_not_pass_for_the_same(folder: Path, door: Door) -> None:
    """Change one key, then one bit: each has to be refused."""
    printed = door("train.plc", *UNIFORM, "weight_decay=0.02", status=2)
    assert "is of another run: weight_decay (was 0.01, is 0.02)" in printed
    state = folder / "uniform" / "checkpoint-2" / "optimizer.pt"
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    assert "optimizer.pt is not what was written" in door("train.plc", *UNIFORM, status=2)


# ---- data


def plain(value: Any) -> Any:
    """Turn a value into what JSON makes of it: tuples become lists."""
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", ["vqa", "mix"])
def test_a_sidecar_of_then_is_read_known_and_made_again(name: str, folder: Path, door: Door) -> None:
    """Read its rows, let the program find it complete, and let it make another one of the same input."""
    expected = read_json(EXPECTED / f"regions_{name}.json")
    table = read_regions(folder / "regions" / name)
    assert [plain(dataclasses.asdict(table[row["sample_id"]])) for row in expected] == expected
    assert len(table) == len(expected)
    # the same input and arguments: the manifest of then says so
    assert "complete, nothing to do" in door("data_prep.annotate", f"configs/annotate_{name}.yaml")
    door("data_prep.annotate", f"configs/annotate_{name}.yaml", f"out=fresh/{name}")
    fresh, old = folder / "fresh" / name, folder / "regions" / name
    assert pq.read_table(fresh / "part-00000.parquet").to_pylist() == expected
    assert (fresh / "rejected.jsonl").read_text() == (old / "rejected.jsonl").read_text()
    for file in old.glob("samples/*.parquet"):
        assert pq.read_table(fresh / "samples" / file.name).to_pylist() == pq.read_table(file).to_pylist()


def test_the_data_pass_the_check_with_the_same_findings(folder: Path, door: Door) -> None:
    """Check a training's configuration: a LLaVA mix and parquet with sidecars, JSONL with boxes of its own."""
    assert "train: yes" in door("data_prep.validate", "configs/plc.yaml", "workers=1", "report=validate.json")
    report, expected = read_json(folder / "validate.json"), read_json(EXPECTED / "validate.json")
    assert report["train"] is expected["train"] is True
    for source, then in zip(report["sources"], expected["sources"], strict=True):
        found = {name: check["count"] for name, check in source["checks"].items() if check["count"]}
        assert {**source, "found": found} == {**source, **then}


# ---- names


RENAMED = {"train.universal": "train.reshard"}
FORMER_KEYS = {
    "attention": ("attn_implementation", "default: sdpa"),
    "quantization": ("load_in_4bit", "default: False"),
}


@pytest.mark.parametrize("program", sorted(read_json(EXPECTED / "keys.json")))
def test_a_program_has_all_its_keys_and_their_defaults(program: str, door: Door) -> None:
    """Read --help: a configuration of then means the same. Transformers' own keys are left out, new ones may come."""
    module, *words = program.split()
    printed = door(RENAMED.get(module, module), *words, "--help")
    keys = dict(re.findall(r"^  (\w+) \((default: .*|required)\)$", printed, re.MULTILINE))
    expected = read_json(EXPECTED / "keys.json")[program]
    for former, (name, default) in FORMER_KEYS.items():  # which are taken, too: tests/train/arguments
        expected |= {name: default} if expected.pop(former, None) else {}
    assert {key: keys.get(key, "gone") for key in expected} == expected


COMMANDS = {
    *("crop-train-plc", "crop-evaluate", "crop-export", "crop-demo-data", "crop-annotate", "crop-validate"),
    *("crop-report", "crop-publish", "crop-push"),
}


def test_the_installed_commands_are_there() -> None:
    """Import what pyproject.toml names, whatever was installed before; lmms-eval's model is among it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"].keys() >= COMMANDS
    for target in (*project["scripts"].values(), project["entry-points"]["lmms_eval.models"]["crop_llava"]):
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name)), target
