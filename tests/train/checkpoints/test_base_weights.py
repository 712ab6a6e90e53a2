"""An adapter on another base than its own is refused; its own may have another type, place and number of files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from data_prep.common.errors import ConfigError
from train.backbones.checkpoint import Checkpoint
from train.checkpoints.base_weights import FILE, sample, spread
from train.plc import main


@pytest.fixture
def adapter(plc_words: list[str], tmp_path: Path) -> Path:
    """A run's result, trained in one process."""
    main(plc_words)
    return tmp_path / "run" / "final"


@pytest.fixture
def base(adapter: Path, tiny_crop_llava: Path) -> Path:
    """A copy of the adapter's base, which it now names."""
    folder = shutil.copytree(tiny_crop_llava, adapter.parent / "base")
    name_as_base(adapter, folder)
    return folder


def name_as_base(adapter: Path, base: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))


def merge(base: Path) -> None:
    """As a merged adapter changes a base: language model's linear layers alone, by a hundredth."""
    weights = load_file(base / "model.safetensors")
    for name, tensor in weights.items():
        if name.endswith("_proj.weight") and "language_model" in name:
            noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))
            weights[name] = tensor + 0.01 * tensor.std() * noise
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})


def test_another_base_is_one_line(adapter: Path, base: Path) -> None:
    Checkpoint.open(adapter).model()
    merge(base)
    with pytest.raises(ConfigError, match=r"model .*final: its base .*base has other weights than it was trained on, "):
        Checkpoint.open(adapter).model()
    (adapter / FILE).unlink()  # an adapter of another program
    Checkpoint.open(adapter).model()


def test_a_damaged_file_is_named(adapter: Path) -> None:
    for content in ("{", "[]", '{"a": {"shape": [2, 2]}}'):
        (adapter / FILE).write_text(content)
        with pytest.raises(ConfigError, match=r"final/base_weights.json: damaged: "):
            Checkpoint.open(adapter).model()


def test_nothing_in_common_is_told(adapter: Path, caplog: pytest.LogCaptureFixture) -> None:
    (adapter / FILE).write_text('{"a": {"shape": [2, 2], "row": [0.0, 0.0]}}')
    Checkpoint.open(adapter).model()
    assert "nothing was compared" in caplog.text


def test_every_kind_of_matrix_is_sampled() -> None:
    """Of LLaVA-1.5-13B's names in the language model's part a whole stride would take one kind."""
    kinds = [*(f"mlp.{kind}_proj" for kind in ("down", "gate", "up")), *(f"self_attn.{kind}_proj" for kind in "kovq")]
    for layers in (24, 28, 32, 40, 60):
        names = [f"layers.{layer}.{kind}" for layer in range(layers) for kind in kinds]
        assert {name.rpartition(".")[2] for name in spread(names)} == {kind.rpartition(".")[2] for kind in kinds}


def test_a_run_does_not_go_on_upon_another_base(
    plc_words: list[str], tiny_crop_llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    base = shutil.copytree(tiny_crop_llava, tmp_path / "base")
    words = [*plc_words, f"model={base}", "save_strategy=steps", "save_steps=1"]
    main(words)
    shutil.rmtree(tmp_path / "run" / "checkpoint-2")
    merge(base)
    with pytest.raises(SystemExit) as caught:
        main([*words, "resume_from_checkpoint=last"])
    assert caught.value.code == 2
    assert "checkpoint-1: its base" in capsys.readouterr().err
    main([*words, "resume_from_checkpoint=last", "resume_with_changes=true"])


def save_as(dtype: torch.dtype, **how: str) -> Callable[[Path], None]:
    def edit(base: Path) -> None:
        model = CropLlavaForConditionalGeneration.from_pretrained(base, dtype=dtype)
        (base / "model.safetensors").unlink()
        model.save_pretrained(base, **how)

    return edit


SAME = {
    "bf16": save_as(torch.bfloat16),
    "fp16": save_as(torch.float16),
    "in several files": save_as(torch.float32, max_shard_size="50KB"),
}


@pytest.mark.parametrize("case", SAME)
def test_the_same_base_otherwise_saved(case: str, adapter: Path, base: Path) -> None:
    SAME[case](base)
    Checkpoint.open(adapter).model()
    Checkpoint.open(adapter).model(torch.bfloat16)


def test_what_is_kept_is_small_and_of_the_whole_model(tiny_crop_llava: Path) -> None:
    kept = sample(str(tiny_crop_llava))
    assert 16 <= len(kept) <= 32
    for part in ("language_model", "vision_tower", "compressor"):
        assert any(part in name for name in kept)
