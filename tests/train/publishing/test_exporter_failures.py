"""Checkpoints that are not whole, and disks that are full: one line, exit status 1, and the output folder as it was.

A full disk is a small tmpfs where this machine lets us mount one; a limit on the size of files stands in elsewhere.
"""

import json
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from train.backbones.checkpoint import Checkpoint
from train.checkpoints.folders import write_manifest
from train.export import main
from train.publishing import exporter as export_module


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An earlier export, or what passes for one, where the new one is to go."""
    monkeypatch.setattr(export_module, "prove", lambda *arguments: 0.0)  # takes seconds; no damage gets that far
    return earlier_export(tmp_path / "exports")


def earlier_export(parent: Path) -> Path:
    folder = parent / "model"
    folder.mkdir(parents=True)
    for name in ("config.json", "modeling_crop_llava.py", "model.safetensors"):
        (folder / name).write_text(f"earlier {name}")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(checkpoint: Path, out: Path, capfd: pytest.CaptureFixture) -> str:
    """The line that an export ends with, which leaves nothing behind."""
    before = contents(out.parent)
    capfd.readouterr()
    with pytest.raises(SystemExit) as caught:
        main([str(checkpoint), str(out)])
    assert caught.value.code == 1
    (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("python -m train.export: error: ")]
    assert contents(out.parent) == before
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    return line


# ---- checkpoints


def cut(name: str, kept: float) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * kept)])

    return edit


def lose(*names: str) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return edit


def overwrite_the_header(folder: Path) -> None:
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[:8] = b"\xff" * 8
    (folder / "model.safetensors").write_bytes(content)


def flip_a_bit_after_the_hashes_were_written(folder: Path) -> None:
    write_manifest(folder, step=1, processes=1, identity={})
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)


def reshape_a_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("lm_head.weight"))
    weights[name] = weights[name][:-1].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def name_as_base(base: str | None) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))

    return edit


def take_a_wider_base(folder: Path) -> None:
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    wider = shutil.copytree(base, folder.with_name("wider"))
    config = Checkpoint.open(wider).config
    config.text_config.hidden_size *= 2
    CropLlavaForConditionalGeneration(config).save_pretrained(wider)
    name_as_base(str(wider))(folder)


HEADER = "Error while deserializing header"
DAMAGES: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "half the weights": ("whole", cut("model.safetensors", 0.5), HEADER),
    "empty weights": ("whole", cut("model.safetensors", 0), HEADER),
    "no header": ("whole", overwrite_the_header, HEADER),
    "one bit": ("whole", flip_a_bit_after_the_hashes_were_written, "model.safetensors"),
    "no weights": ("whole", lose("model.safetensors"), "no file named model.safetensors"),
    "another shape": ("whole", reshape_a_weight, "1 weights are of another shape, the first is lm_head.weight"),
    "half a configuration": ("whole", cut("config.json", 0.5), "config.json' is not a valid JSON file"),
    "no processor": ("whole", lose("processor_config.json"), "image processor"),
    "half a processor": ("whole", cut("processor_config.json", 0.5), "processor_config.json' is not a valid JSON"),
    "no tokenizer": ("whole", lose("tokenizer.json", "tokenizer_config.json"), "tokenizer"),
    "half a tokenizer": ("whole", cut("tokenizer.json", 0.5), ""),
    "no chat template": ("whole", lose("chat_template.jinja"), "its processor has no chat template"),
    "half an adapter": ("adapter", cut("adapter_model.safetensors", 0.5), f"the adapter is damaged: {HEADER}"),
    "no adapter": ("adapter", lose("adapter_model.safetensors"), "the adapter's weights are missing"),
    "base is gone": ("adapter", name_as_base("/nowhere/base"), "model /nowhere/base: no such folder"),
    "no base": ("adapter", name_as_base(None), "its adapter_config.json names no base model"),
    "another base": ("adapter", take_a_wider_base, r"model .*wider: \d+ weights are of another shape"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_checkpoint_that_is_not_whole(
    case: str, tiny_crop_llava: Path, lora_checkpoint: Path, out: Path, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    kind, damage, message = DAMAGES[case]
    checkpoint = shutil.copytree(tiny_crop_llava if kind == "whole" else lora_checkpoint, tmp_path / "checkpoint")
    damage(checkpoint)
    line = refused(checkpoint, out, capfd)
    assert line.startswith(f"python -m train.export: error: checkpoint {checkpoint}: ")
    assert re.search(message, line), line


@pytest.mark.parametrize("kind", ["whole", "adapter"])
def test_undamaged_they_take_the_earlier_exports_place(
    kind: str, tiny_crop_llava: Path, lora_checkpoint: Path, out: Path
) -> None:
    main([str(tiny_crop_llava if kind == "whole" else lora_checkpoint), str(out)])
    assert load_file(out / "model.safetensors")
    assert [path.name for path in out.parent.iterdir()] == [out.name]


# ---- disks


@pytest.fixture(scope="module")
def needed(tiny_crop_llava: Path) -> int:
    """Bytes of the weights, which are most of an export."""
    return (tiny_crop_llava / "model.safetensors").stat().st_size


@pytest.fixture
def disk(tmp_path: Path, needed: int, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk with room for so many bytes beside the weights."""
    place = tmp_path / "disk"
    place.mkdir()
    size = needed + request.param
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounting.returncode != 0:
        pytest.skip("may not mount a file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("disk", [-180_000, 0, 124_000], indirect=True)
def test_a_full_disk(
    disk: Path, tiny_crop_llava: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "prove", lambda *arguments: 0.0)
    out = earlier_export(disk / "exports")
    assert "No space left on device" in refused(tiny_crop_llava, out, capfd)


@pytest.mark.parametrize("disk", [1_000_000], indirect=True)
def test_a_disk_with_room(disk: Path, tiny_crop_llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "prove", lambda *arguments: 0.0)
    out = earlier_export(disk / "exports")
    main([str(tiny_crop_llava), str(out)])
    assert load_file(out / "model.safetensors")


def grow_the_tokenizer(folder: Path) -> None:
    """Beyond the weights: its own library, in another language, writes the file."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"word{number}" for number in range(5000)])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("file", ["weights", "tokenizer"])
def test_files_that_may_not_grow(
    file: str, tiny_crop_llava: Path, out: Path, needed: int, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    checkpoint = shutil.copytree(tiny_crop_llava, tmp_path / "checkpoint")
    if file == "tokenizer":
        grow_the_tokenizer(checkpoint)
        assert (checkpoint / "tokenizer.json").stat().st_size > 2 * needed
    limit = needed // 2 if file == "weights" else 2 * needed
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        assert "File too large" in refused(checkpoint, out, capfd)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
