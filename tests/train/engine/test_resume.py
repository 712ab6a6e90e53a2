"""A resumed run ends as if it had never stopped, to the bit, and reports if it cannot.

One process here; two, killed, in tests/integration/test_reliability.py.
"""

import json
import os
import re
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from data_prep.common.command_line import parse_config
from data_prep.common.errors import ConfigError
from train.arguments.data import DataArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.checkpoints.folders import read_manifest, write_manifest
from train.checkpoints.universal import convert
from train.data.collator import Collator
from train.engine.resume import check_identity, check_processes, checkpoint_to_resume, data_fingerprint
from train.engine.run import train
from train.engine.trainer import PlcTrainer
from train.plc import main

STEPS = 7  # an epoch has four
pytestmark = pytest.mark.xdist_group("resume")


def arguments(words: Sequence[str]) -> tuple[ModelArguments, DataArguments, PlcTrainingArguments]:
    return parse_config((ModelArguments, DataArguments, PlcTrainingArguments), words, prog="test", description="")


Batches = list[tuple[int, tuple[str, ...]]]  # step and sample ids of every batch that is trained on


def record_batches(patch: pytest.MonkeyPatch) -> Batches:
    seen: Batches = []
    step = PlcTrainer.training_step

    def record(self: PlcTrainer, model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
        seen.append((self.state.global_step, tuple(inputs["sample_ids"])))
        return step(self, model, inputs, *rest)

    patch.setattr(PlcTrainer, "training_step", record)
    return seen


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Batches:
    """What the test trains on."""
    return record_batches(monkeypatch)


def words_of_a_run(words: Sequence[str], run: Path) -> list[str]:
    """A run with dropout that keeps a checkpoint of every step."""
    lora = "lora={r: 4, lora_alpha: 8, lora_dropout: 0.2}"
    every_step = ["save_strategy=steps", "save_steps=1", "eval_strategy=epoch"]
    return [*words, lora, f"max_steps={STEPS}", *every_step, f"output_dir={run}"]


@pytest.fixture
def run_words(training_words: list[str], tmp_path: Path) -> list[str]:
    return words_of_a_run(training_words, tmp_path / "run")


@pytest.fixture(scope="module")
def undisturbed(training_words: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Batches]:
    """The run that all others are compared with, and what it trained on."""
    run = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        trained = record_batches(patch)
        train(*arguments(words_of_a_run(training_words, run)))
    assert [step for step, _ in trained] == list(range(STEPS))
    return run, trained


@pytest.fixture
def finished(undisturbed: tuple[Path, Batches], tmp_path: Path) -> Path:
    """The folder of the undisturbed run, the test's own to change."""
    return shutil.copytree(undisturbed[0], tmp_path / "run")


def copy_up_to(run: Path, step: int, target: Path) -> Path:
    """What a run that was killed behind a step has left."""
    shutil.copytree(run / f"checkpoint-{step}", target / f"checkpoint-{step}")
    return target


def differences(run: Path, other: Path) -> list[str]:
    """Names of the trained tensors and of the optimizer's states that are not the same to the bit, at the end."""
    files = [folder / "final" / "adapter_model.safetensors" for folder in (run, other)]
    weights, other_weights = (load_file(file) for file in files)
    states = [torch.load(folder / f"checkpoint-{STEPS}" / "optimizer.pt")["state"] for folder in (run, other)]
    assert weights.keys() == other_weights.keys()
    assert states[0].keys() == states[1].keys()
    return [name for name, tensor in weights.items() if not torch.equal(tensor, other_weights[name])] + [
        f"{parameter}: {name}"
        for parameter, state in states[0].items()
        for name, tensor in state.items()
        if not torch.equal(tensor, states[1][parameter][name])
    ]


@pytest.mark.parametrize("step", [2, 4, STEPS])
def test_the_end_is_that_of_the_undisturbed_run(
    step: int,
    run_words: list[str],
    finished: Path,
    undisturbed: tuple[Path, Batches],
    tmp_path: Path,
    batches: Batches,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the middle of an epoch, at its end, and where nothing but `final` is left to do; no skipped image is read."""
    expected = undisturbed[1][step:]
    opened: list[str] = []
    open_images = Collator.open_images

    def count(self: Collator, row: Any) -> Any:
        opened.append(row["sample_id"])
        return open_images(self, row)

    monkeypatch.setattr(Collator, "open_images", count)
    again = copy_up_to(finished, step, tmp_path / "again")
    words = [*run_words, f"output_dir={again}", "resume_from_checkpoint=last", "eval_strategy=no"]
    train(*arguments(words))  # evaluation may be left out: it changes nothing, and its images would be counted
    assert batches == expected
    trained = [sample for _, batch in expected for sample in batch]
    # the sample that is printed at the start, then the training's; the data loader reads one batch ahead, of which the
    # last of an epoch has none
    assert opened[1 : 1 + len(trained)] == trained
    assert len(opened) <= 1 + len(trained) + 4
    assert differences(finished, again) == []
    said = f"resuming at step {step} of {STEPS}, rates "
    place = f"data position: epoch {step // 4}, batch {step % 4} of 4 of each process"
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(said)]
    assert line.endswith(place)


def drop_rng(checkpoint: Path) -> None:
    (checkpoint / "rng_state.pth").unlink()
    manifest = read_manifest(checkpoint)
    write_manifest(checkpoint, manifest["step"], 1, manifest["identity"])


def test_without_its_random_state_the_end_is_another(run_words: list[str], finished: Path, tmp_path: Path) -> None:
    """Negative control: the comparison sees a lost state."""
    again = copy_up_to(finished, 2, tmp_path / "again")
    drop_rng(again / "checkpoint-2")
    train(*arguments([*run_words, f"output_dir={again}", "resume_from_checkpoint=last"]))
    assert differences(finished, again)


def test_without_its_data_position_the_batches_are_others(
    run_words: list[str], finished: Path, undisturbed: tuple[Path, Batches], tmp_path: Path, batches: Batches
) -> None:
    """Negative control: the comparison sees a lost position."""
    expected = undisturbed[1][2:]
    again = copy_up_to(finished, 2, tmp_path / "again")
    words = [*run_words, f"output_dir={again}", "resume_from_checkpoint=last", "ignore_data_skip=true"]
    train(*arguments([*words, "resume_with_changes=true"]))
    assert [step for step, _ in batches] == [step for step, _ in expected]
    assert batches != expected
    assert differences(finished, again)


# ---- which checkpoint


def resumed(words: Sequence[str], *more: str) -> Path | None:
    return checkpoint_to_resume(arguments([*words, *more])[2])


def test_a_broken_newest_checkpoint_falls_back_loudly(
    run_words: list[str], finished: Path, capsys: pytest.CaptureFixture
) -> None:
    state = finished / f"checkpoint-{STEPS}" / "optimizer.pt"
    state.write_bytes(state.read_bytes()[:100])
    for wanted in ("last", "auto"):
        folder = resumed(run_words, f"resume_from_checkpoint={wanted}")
        assert folder == finished / f"checkpoint-{STEPS - 1}"
        output = capsys.readouterr().out
        assert f"WARNING: broken checkpoint {state.parent}: optimizer.pt has 100 bytes of" in output
        assert output.endswith(f"resuming from {folder}\n")
    with pytest.raises(ConfigError, match=r"optimizer.pt has 100 bytes of"):
        resumed(run_words, f"resume_from_checkpoint={state.parent}")


def test_from_the_start_or_not_at_all(run_words: list[str], tmp_path: Path) -> None:
    assert resumed(run_words) is None
    assert resumed(run_words, "resume_from_checkpoint=auto") is None
    with pytest.raises(ConfigError, match="resume_from_checkpoint: no checkpoint in"):
        resumed(run_words, "resume_from_checkpoint=last")
    (tmp_path / "run" / "checkpoint-3").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"output_dir: .*checkpoint-3 is of an earlier run"):
        resumed(run_words)
    with pytest.raises(ConfigError, match=r"no whole checkpoint in .*checkpoint-3: no manifest"):
        resumed(run_words, "resume_from_checkpoint=auto")


def test_zero_checkpoints_of_another_number_of_processes_name_the_command(tmp_path: Path) -> None:
    parts = tmp_path / "checkpoint-3" / "global_step3"
    parts.mkdir(parents=True)
    (parts / "zero_pp_rank_1_mp_rank_00_optim_states.pt").write_text("")
    for process in range(2):
        (parts.parent / f"rng_state_{process}.pth").write_text("")
    write_manifest(parts.parent, 3, 2, {})
    check_processes(parts.parent, 2)
    command = re.escape(f"`python -m train.reshard {parts.parent} OUT`")
    with pytest.raises(ConfigError, match=f"checkpoint-3 is of 2 processes, this run has 1; {command}"):
        check_processes(parts.parent, 1)
    with pytest.raises(ConfigError, match=r"out: .*checkpoint-3 is there already"):
        convert(parts.parent, parts.parent)
    (parts / "zero_pp_rank_1_mp_rank_00_model_states.pt").write_text("")
    write_manifest(parts.parent, 3, 2, {})
    with pytest.raises(ConfigError, match=r"checkpoint-3 is of ZeRO-3, whose learning rates"):
        convert(parts.parent, tmp_path / "out")
    (parts.parent / "latest_universal").write_text("global_step3")
    write_manifest(parts.parent, 3, 1, {})
    check_processes(parts.parent, 4)
    with pytest.raises(ConfigError, match="holds no state by process"):
        convert(parts.parent, tmp_path / "out")


# ---- the same run


def change_answer(records: list[dict[str, Any]]) -> None:
    records[5]["conversations"][1]["value"] = "9"


CHANGES: dict[str, tuple[Sequence[str], str | None]] = {
    "learning rate": (["learning_rate=1e-4"], r"learning_rate \(was 0.01, is 0.0001\)"),
    "length of the schedule": (["max_steps=9"], rf"max_steps \(was {STEPS}, is 9\)"),
    "adapter": (["lora={r: 4, lora_alpha: 8}"], r"lora \(was .*lora_dropout"),
    "global batch": (["per_device_train_batch_size=2"], r"global_batch \(was 4, is 2\)"),
    "same global batch": (["per_device_train_batch_size=2", "gradient_accumulation_steps=2"], None),
    "logging": (["logging_steps=5", "save_total_limit=3", "dataloader_num_workers=1"], None),
}


@pytest.fixture(scope="module")
def one_step(training_words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped behind its first step."""
    run = tmp_path_factory.mktemp("one_step")
    train(*arguments([*words_of_a_run(training_words, run), "max_steps=1", "eval_strategy=no"]))
    return run


@pytest.mark.parametrize("case", CHANGES)
def test_another_configuration_is_refused_by_name(
    case: str, one_step: Path, run_words: list[str], tmp_path: Path
) -> None:
    shutil.copytree(one_step, tmp_path / "run")
    words, message = CHANGES[case]
    again = [*run_words, "eval_strategy=no", "max_steps=1", "resume_from_checkpoint=last", *words]
    if message is None:
        train(*arguments(again))
        return
    message = message.replace(f"was {STEPS}", "was 1")
    with pytest.raises(ConfigError, match=f"checkpoint-1 is of another run: {message}"):
        train(*arguments(again))
    assert train(*arguments([*again, "resume_with_changes=true"])).state.global_step >= 1


def test_other_data_are_refused_wherever_they_lie(
    run_words: list[str], finished: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    copy = shutil.copytree(toy_data, tmp_path / "moved")
    words = [word.replace(str(toy_data), str(copy)) for word in run_words]
    assert words != run_words
    trainer = train(*arguments([*words, "resume_from_checkpoint=last"]))  # moved: the same data
    checkpoint = finished / f"checkpoint-{STEPS}"
    assert data_fingerprint(trainer.train_dataset) == read_manifest(checkpoint)["identity"]["data"]

    records = json.loads((copy / "data.json").read_text())
    change_answer(records)
    (copy / "data.json").write_text(json.dumps(records))
    with pytest.raises(ConfigError, match=r"is of another run: train_data \(other samples\); resume_with_changes=true"):
        train(*arguments([*words, "resume_from_checkpoint=last"]))
    train(*arguments([*words, "resume_from_checkpoint=last", "resume_with_changes=true"]))
    assert f"resuming from {checkpoint} with changes: train_data (other samples)" in capsys.readouterr().out


# ---- signals and rotation


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_the_step_and_leaves_with_status_75(
    number: signal.Signals,
    run_words: list[str],
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    step = PlcTrainer.training_step

    def send(self: PlcTrainer, *rest: Any) -> Any:
        if self.state.global_step == 4:
            os.kill(os.getpid(), number)
        return step(self, *rest)

    before = signal.getsignal(number)
    monkeypatch.setattr(PlcTrainer, "training_step", send)
    words = [*run_words, f"output_dir={tmp_path / 'again'}", "save_steps=100"]
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 75
    assert "resume_from_checkpoint=last resumes at step 5" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "again").glob("*-*")] == ["checkpoint-5"]
    assert not (tmp_path / "again" / "final").exists()
    assert signal.getsignal(number) == before
    monkeypatch.setattr(PlcTrainer, "training_step", step)
    main([*words, "resume_from_checkpoint=auto", "save_steps=1"])
    assert differences(finished, tmp_path / "again") == []


def test_old_checkpoints_go_only_when_the_new_one_is_whole(
    run_words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    present: list[list[str]] = []

    def note(folder: Path, *rest: Any) -> None:
        present.append(sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")))
        write_manifest(folder, *rest)

    monkeypatch.setattr("train.engine.trainer.write_manifest", note)
    train(*arguments([*run_words, "max_steps=3", "save_total_limit=1", "eval_strategy=no"]))
    assert present == [[], ["checkpoint-1"], ["checkpoint-2"]]
    assert sorted(path.name for path in (tmp_path / "run").glob("*-*")) == ["checkpoint-3"]


def test_the_best_checkpoint_is_known_by_its_own_name(run_words: list[str], tmp_path: Path) -> None:
    """The Trainer looks for it where it writes, which is another folder."""
    best = ["eval_strategy=steps", "eval_steps=1", "load_best_model_at_end=true", "metric_for_best_model=exact_match"]
    trainer = train(*arguments([*run_words, *best, "max_steps=3"]))
    expected = tmp_path / "run" / f"checkpoint-{trainer.state.best_global_step}"
    assert trainer.state.best_model_checkpoint == str(expected)
    state = json.loads((tmp_path / "run" / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(expected)


@pytest.mark.parametrize("lora", ["lora=null", "lora={r: 4}"])
def test_the_best_model_is_the_one_that_its_checkpoint_holds(lora: str, run_words: list[str], tmp_path: Path) -> None:
    """Not the last one with the best one's compressor: files of whole models name their tensors as the base's do."""
    best = ["eval_strategy=steps", "eval_steps=1", "load_best_model_at_end=true", "metric_for_best_model=loss"]
    run = tmp_path / "run"
    first_is_best = ["greater_is_better=true", "lr_scheduler_type=constant"]  # the loss falls
    trainer = train(*arguments([*run_words, lora, f"output_dir={run}", *best, *first_is_best, "max_steps=3"]))
    file = "model.safetensors" if lora == "lora=null" else "adapter_model.safetensors"
    stored, final, last = (load_file(run / name / file) for name in ("checkpoint-1", "final", "checkpoint-3"))
    assert trainer.state.best_global_step == 1
    assert all(torch.equal(stored[name], final[name]) for name in stored)
    assert any("projector" in name and not torch.equal(stored[name], last[name]) for name in stored)


def test_identity_names_a_key_that_only_one_of_the_runs_has(tmp_path: Path) -> None:
    write_manifest(tmp_path, 1, 1, {"data": "d", "config": {"seed": 1}})
    with pytest.raises(ConfigError, match=r"another run: new_key \(was None, is 3\);"):
        check_identity(tmp_path, {"data": "d", "config": {"seed": 1, "new_key": 3}}, with_changes=False)
