"""The entry point: a wrong call ends in one line and status 2 before any model is loaded; what a run leaves behind."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from data_prep.schema.sample import RegionAnnotation, sample_id, write_regions
from train.backbones.checkpoint import Checkpoint
from train.checkpoints.folders import read_manifest, write_manifest
from train.plc import main


@pytest.fixture
def defective(toy_data: Path, tmp_path: Path) -> Callable[[Callable[[list], None], tuple[float, ...]], str]:
    """Writes a changed copy of the toy data and gives the words that train on it."""

    def write(change: Callable[[list], None], box: tuple[float, ...] = (1, 1, 9, 9)) -> str:
        records = json.loads((toy_data / "data.json").read_text())[:4]
        question = records[0]["conversations"][0]["value"].removeprefix("<image>\n")
        key = sample_id("toy", "0.png", 0, question)
        annotation = RegionAnnotation(key, "toy", "0.png", 0, question, 40, 64, [box], box, "human")  # type: ignore[arg-type]
        write_regions(tmp_path / "regions", [annotation], {})
        change(records)
        (tmp_path / "data.json").write_text(json.dumps(records))
        files = {
            "annotations": tmp_path / "data.json",
            "image_root": toy_data / "images",
            "regions": tmp_path / "regions",
        }
        return f"train_data=[{json.dumps({key: str(path) for key, path in files.items()})}]"

    return write


def remove_answer(records: list) -> None:
    records[2]["conversations"][1]["value"] = ""


def remove_image(records: list) -> None:
    records[1]["image"] = "gone.png"


WRONG_CALLS = {
    "unknown key": (["learning_rat=1"], r"command line: unknown key 'learning_rat' \(did you mean 'learning_rate'\?\)"),
    "wrong type": (["max_steps=many"], "command line: max_steps: expected a whole number, got 'many'"),
    "missing configuration": (["nowhere.yaml"], "nowhere.yaml: no such file"),
    "missing annotations": (
        ["train_data=[{annotations: gone.json}]"],
        "train_data.0.annotations: no such file .*gone.json",
    ),
    "missing model": (["model=gone/to/nowhere"], "model gone/to/nowhere: "),
    "missing image": (remove_image, "data.json: record 1 .*no image file .*gone.png"),
    "no answer": (remove_answer, "data.json: record 2 .*question 0 has no answer"),
    "too long": (["max_length=24"], "data.json: record 0 .*tokens, above max_length 24"),
    "budget above the patches": (["token_budget=65"], "token_budget: 65 is outside 2..64"),
    "growth out of range": (["region_scale=0"], "model .*region_scale must be above 0"),
    "no data": (["train_data=[]"], "command line: train_data: no data"),
    "nothing to evaluate on": (
        ["eval_data=[]", "eval_strategy=steps", "eval_steps=1"],
        "command line: eval_data: eval_strategy",
    ),
    "nothing to resume": (["resume_from_checkpoint=last"], "resume_from_checkpoint: no checkpoint in .*run"),
    "region outside": ((50, 1, 60, 9), r"data.json: record 0 \(id 0\): question 0: .*outside"),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_wrong_calls(
    case: str,
    plc_words: list[str],
    defective: Callable[..., str],
    capfd: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load_no_model(*args: object, **kwargs: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(CropLlavaForConditionalGeneration, "from_pretrained", load_no_model)
    change, message = WRONG_CALLS[case]
    if callable(change):
        words = [defective(change)]
    elif isinstance(change, tuple):
        words = [defective(lambda records: None, change)]
    else:
        words = change
    with pytest.raises(SystemExit) as caught:
        main([*plc_words, *words])
    assert caught.value.code == 2
    (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("python -m train.plc: error: ")]
    assert re.search(message, line), line


def failure(words: list[str], capfd: pytest.CaptureFixture) -> str:
    """The one line of a run that ends with status 1."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 1
    captured = capfd.readouterr()
    assert "what trains" in captured.out
    assert "Traceback" not in captured.err
    (line,) = [x for x in captured.err.splitlines() if "error: " in x]
    return line.rpartition("\r")[2].removeprefix("python -m train.plc: error: ")


def test_a_loss_that_is_not_finite_is_a_failed_run(
    plc_words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    checkpoint = Checkpoint.open(plc_words[0].removeprefix("model="))
    model, processor = checkpoint.model(), checkpoint.processor()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    model.save_pretrained(tmp_path / "broken")
    processor.save_pretrained(tmp_path / "broken")
    words = [*plc_words, f"model={tmp_path / 'broken'}", "disable_tqdm=false"]
    assert failure(words, capfd).startswith("loss is nan after step 0, samples ")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_does_not_open_is_a_failed_run(
    workers: int,
    plc_words: list[str],
    defective: Callable[..., str],
    toy_data: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
) -> None:
    images = shutil.copytree(toy_data / "images", tmp_path / "images")
    (images / "3.png").write_bytes((images / "3.png").read_bytes()[:60])
    data = defective(lambda records: None).replace(str(toy_data / "images"), str(images))
    line = failure([*plc_words, data, f"dataloader_num_workers={workers}"], capfd)
    assert re.match(r".*data.json: record 3 .*3.png: ", line)


def test_a_schedule_at_another_step_is_a_failed_run(
    plc_words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    main([*plc_words, "save_strategy=steps", "save_steps=1", "max_steps=3"])
    checkpoint = tmp_path / "run" / "checkpoint-1"
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    (checkpoint / "trainer_state.json").write_text(json.dumps({**state, "global_step": 2}))
    write_manifest(checkpoint, 2, 1, read_manifest(checkpoint)["identity"])
    line = failure([*plc_words, "max_steps=3", f"resume_from_checkpoint={checkpoint}"], capfd)
    assert line == "the schedule is at step 1, the run at 2: not the same run"


def test_a_run_leaves_its_folder(
    plc_words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["save_strategy=steps", "save_steps=1", "picture_steps=1", "report_to=tensorboard"]
    monkeypatch.setattr(sys, "argv", ["plc.py", *plc_words, *words])
    main()
    run = tmp_path / "run"
    assert "what trains" in capsys.readouterr().out
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    for folder in ("checkpoint-1", "checkpoint-2", "final"):
        checkpoint = Checkpoint.open(run / folder)
        model, processor = checkpoint.model(), checkpoint.processor()
        assert model.config.token_budget == processor.token_budget == 16
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["token_budget"] == 16
    assert config["train_data"][0]["regions"].endswith("regions/toy")
    (curves,) = run.glob("runs/*")
    scalars = set(EventAccumulator(str(curves)).Reload().Tags()["scalars"])
    assert {"train/loss", "train/lr/lora", "train/lr/compressor", "train/grad_norm", "train/tokens_per_s"} <= scalars
    pictures = EventAccumulator(str(run / "pictures"), size_guidance={"images": 0}).Reload().Images("samples")
    assert [picture.step for picture in pictures] == [1, 2]
    assert min(pictures[0].width, pictures[0].height) > 900  # two by two
