"""A folder is whole or it is refused; an older one is there until the new one is."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from data_prep.common.errors import ConfigError, RunError
from train.checkpoints.folders import (
    MANIFEST,
    STAGING,
    check_whole,
    clear_staging,
    newest_whole,
    publish,
    read_manifest,
    write_manifest,
)


def stage(run: Path, step: int, content: str = "weights") -> None:
    clear_staging(run)
    folder = run / STAGING / f"checkpoint-{step}"
    (folder / f"global_step{step}").mkdir(parents=True)
    (folder / "trainer_state.json").write_text("{}")
    (folder / f"global_step{step}" / "optimizer.pt").write_text(content)
    write_manifest(folder, step, 1, {"data": "d"})


def save(run: Path, step: int, content: str = "weights") -> Path:
    stage(run, step, content)
    publish(run, f"checkpoint-{step}")
    return run / f"checkpoint-{step}"


def optimizer(checkpoint: Path) -> Path:
    return next(checkpoint.glob("*/optimizer.pt"))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda folder: optimizer(folder).unlink(), "global_step2/optimizer.pt is missing"),
    "cut": (lambda folder: optimizer(folder).write_text("weig"), "global_step2/optimizer.pt has 4 bytes of 7"),
    "changed": (lambda folder: optimizer(folder).write_text("weightz"), "global_step2/optimizer.pt is not what was"),
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "no manifest.json"),
    "half a manifest": (lambda folder: (folder / MANIFEST).write_text('{"step": 2, "fi'), "manifest.json: not JSON"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(case: str, tmp_path: Path) -> None:
    first, second = save(tmp_path, 1), save(tmp_path, 2)
    check_whole(second)
    assert newest_whole(tmp_path) == (second, [])
    damage, message = DAMAGE[case]
    damage(second)
    with pytest.raises(ConfigError, match=re.escape(message)):
        check_whole(second)
    folder, (problem,) = newest_whole(tmp_path)
    assert folder == first
    assert message in problem


def test_the_newest_is_that_of_the_highest_step(tmp_path: Path) -> None:
    for step in (5, 9, 10, 2):
        save(tmp_path, step)
    assert newest_whole(tmp_path)[0] == tmp_path / "checkpoint-10"


def test_nothing_counts_before_its_rename_and_the_next_run_removes_it(tmp_path: Path) -> None:
    assert newest_whole(tmp_path) == (None, [])
    stage(tmp_path, 1)
    assert newest_whole(tmp_path) == (None, [])
    clear_staging(tmp_path)
    assert not any((tmp_path / STAGING).iterdir())


def test_the_older_one_of_that_name_is_replaced_as_a_whole(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 1, "old")
    (checkpoint / "stray").write_text("")
    stage(tmp_path, 1, "new")
    assert optimizer(checkpoint).read_text() == "old"
    publish(tmp_path, "checkpoint-1")
    assert optimizer(checkpoint).read_text() == "new"
    assert not (checkpoint / "stray").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]


def test_the_manifest_tells_step_processes_and_identity(tmp_path: Path) -> None:
    manifest = read_manifest(save(tmp_path, 3))
    assert (manifest["step"], manifest["processes"], manifest["identity"]) == (3, 1, {"data": "d"})
    assert sorted(manifest["files"]) == ["global_step3/optimizer.pt", "trainer_state.json"]


def test_a_process_that_writes_to_another_disk_is_found_at_the_first_save(tmp_path: Path) -> None:
    (tmp_path / "rng_state_0.pth").write_text("")
    with pytest.raises(RunError, match="process 1 wrote elsewhere"):
        write_manifest(tmp_path, 1, 2, {})


def test_weights_can_be_read_by_whoever_reads_the_rest(tmp_path: Path) -> None:
    stage(tmp_path, 1)
    folder = tmp_path / STAGING / "checkpoint-1"
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o600)
    publish(tmp_path, "checkpoint-1")
    written = tmp_path / "checkpoint-1"
    assert (written / "model.safetensors").stat().st_mode == (written / "trainer_state.json").stat().st_mode
