"""Which checkpoints are read from an engine's states. What they hold: tests/integration/test_train_launcher.py."""

import shutil
from pathlib import Path

import pytest

from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from data_prep.common.errors import ConfigError
from train.checkpoints.zero_weights import with_weights


@pytest.fixture
def checkpoint(tiny_crop_llava: Path, tmp_path: Path) -> Path:
    """A whole model and, beside it, states of an engine that are none."""
    folder = tmp_path / "checkpoint-5"
    shutil.copytree(tiny_crop_llava, folder)
    states = folder / "global_step5"
    states.mkdir()
    for kind in ("model", "optim"):
        (states / f"zero_pp_rank_0_mp_rank_00_{kind}_states.pt").write_bytes(b"nothing")
    (folder / "latest").write_text(states.name)
    return folder


def test_weights_that_are_there_are_taken(checkpoint: Path, tiny_crop_llava: Path, tmp_path: Path) -> None:
    for name in (checkpoint, tiny_crop_llava, "owner/name"):
        assert with_weights(str(name), tmp_path / "whole", CropLlavaForConditionalGeneration) == str(name)
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize("lost", ["", "latest"])
def test_states_that_are_not_whole_are_one_line(lost: str, checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    if lost:
        (checkpoint / lost).unlink()
    with pytest.raises(ConfigError, match=r"model .*checkpoint-5: the engine's states are not whole: .+") as caught:
        with_weights(str(checkpoint), tmp_path / "whole", CropLlavaForConditionalGeneration)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "whole").exists()
