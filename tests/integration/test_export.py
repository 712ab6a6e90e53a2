"""An export stands without this project, computes what its checkpoint does, and is all there or not there at all."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from train.backbones.checkpoint import Checkpoint
from train.export import main
from train.publishing import exporter as export_module

pytestmark = pytest.mark.integration

# What a stranger does with an export, and nothing of ours: written apart from train.publishing.proof on purpose.
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
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

folder, image, out = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
outputs = {}
for name, region in (("none", None), ("box", [8, 4, 30, 20])):
    text = "USER: <image>\\nwhat is the digit ? ASSISTANT:"
    inputs = processor(images=[Image.open(image)], text=[text], regions=[region], return_tensors="pt")
    with torch.no_grad():
        outputs[name] = model(**inputs).logits
        outputs[name + " answer"] = model.generate(**inputs, max_new_tokens=4, do_sample=False)
ask = pipeline("image-text-to-text", model=folder, trust_remote_code=True)
greedy = {"generate_kwargs": {"max_new_tokens": 4, "do_sample": False}, "return_tensors": True}
for name, region in (("none", None), ("box", [8, 4, 30, 20])):
    content = [{"type": "image", "image": Image.open(image), "region": region}]
    chat = [{"role": "user", "content": [*content, {"type": "text", "text": "what is the digit ?"}]}]
    (said,) = ask(text=chat, **greedy)
    outputs[name + " chat"] = torch.as_tensor(said["generated_token_ids"])
    (said,) = ask(images=Image.open(image), text=text, processor_kwargs={"regions": [region]}, **greedy)
    outputs[name + " plain"] = torch.as_tensor(said["generated_token_ids"])
assert not {"crop_model", "data_prep", "train"} & set(sys.modules)
save_file(outputs, out)
"""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    noise = torch.randint(0, 256, (24, 40, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    Image.fromarray(noise.numpy()).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def ask_as_stranger(folder: Path, image: Path) -> dict[str, torch.Tensor]:
    out = image.with_name("stranger.safetensors")
    environment = {**os.environ, "HF_MODULES_CACHE": str(image.with_name("modules")), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-I", "-c", STRANGER, str(folder), str(image), str(out)]
    done = subprocess.run(command, cwd=image.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return load_file(out)


def ask_checkpoint(checkpoint: Path, image: Path) -> dict[str, torch.Tensor]:
    opened = Checkpoint.open(checkpoint)
    model, processor = opened.model(), opened.processor()
    outputs = {}
    for name, region in (("none", None), ("box", [8, 4, 30, 20])):
        text = "USER: <image>\nwhat is the digit ? ASSISTANT:"
        inputs = processor(images=[Image.open(image)], text=[text], regions=[region], return_tensors="pt")
        with torch.no_grad():
            outputs[name] = model(**inputs).logits
            outputs[name + " answer"] = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    return outputs


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def paths_named(folder: Path, *paths: Path) -> list[tuple[str, str]]:
    """Files that name a place on this machine."""
    files = contents(folder)
    return [(name, str(path)) for name in files for path in paths if str(path).encode() in files[name]]


@pytest.mark.parametrize("kind", ["merged LoRA", "whole model"])
def test_an_export_computes_what_the_checkpoint_does(
    kind: str, lora_checkpoint: Path, tiny_crop_llava: Path, image: Path, tmp_path: Path
) -> None:
    checkpoint = lora_checkpoint if kind == "merged LoRA" else tiny_crop_llava
    out = tmp_path / "exports" / "model"
    main([str(checkpoint), str(out)])
    assert [path.name for path in out.parent.iterdir()] == ["model"]
    computed, expected = ask_as_stranger(out, image), ask_checkpoint(checkpoint, image)
    for name in ("none", "box"):
        torch.testing.assert_close(computed[name], expected[name], atol=1e-5, rtol=0)
        assert torch.equal(computed[f"{name} answer"], expected[f"{name} answer"])
        for way in ("chat", "plain"):  # of the pipeline
            assert torch.equal(computed[f"{name} {way}"], expected[f"{name} answer"][0])
    assert (computed["none"] - computed["box"]).abs().max() > 1e-2  # the region arrives
    config = json.loads((out / "config.json").read_text())
    assert config["auto_map"]["AutoModelForImageTextToText"] == "modeling_crop_llava.CropLlavaForConditionalGeneration"
    assert paths_named(out, checkpoint, tiny_crop_llava, tmp_path) == []


def test_lora_may_be_kept_apart(lora_checkpoint: Path, tiny_crop_llava: Path, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    main([str(lora_checkpoint), str(out), "merge=false"])  # its own proof loads weights and adapter
    assert paths_named(out, lora_checkpoint, tiny_crop_llava, tmp_path) == []
    without = ask_as_stranger(out, image)["box"]
    assert (without - ask_checkpoint(lora_checkpoint, image)["box"]).abs().max() > 1e-2  # so the adapter matters


def damage_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(weights) if name.endswith("q_proj.weight") and "language_model" in name)
    weights[name][0, 0] += 0.5
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def lose_a_source_file(folder: Path) -> None:
    (folder / "regions.py").unlink()


def need_the_project(folder: Path) -> None:
    source = folder / "modeling_crop_llava.py"
    source.write_text(source.read_text().replace("from .compressor", "from crop_model.compressor"))


def change_the_frame(folder: Path) -> None:
    processor = json.loads((folder / "processor_config.json").read_text())
    processor["frame"] = "squashed"
    (folder / "processor_config.json").write_text(json.dumps(processor))


DAMAGES = {
    "weights": (damage_weights, r"logits differ by \d"),
    "source file": (lose_a_source_file, "does not load without this project: .*regions.py"),
    "project": (need_the_project, "does not load without this project: .*crop_model"),
    "processor": (change_the_frame, "the exported processor computes another"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_export_is_found_and_leaves_everything_as_it_was(
    case: str, lora_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "exports" / "model"
    out.mkdir(parents=True)
    for name in ("config.json", "modeling_crop_llava.py"):  # an earlier export, or what passes for one
        (out / name).write_text("earlier")
    before = contents(out.parent)
    damage, message = DAMAGES[case]
    write_model = export_module.write_model

    def write_damaged(model: object, processor: object, folder: Path, *how: object) -> bool:
        has_adapter = write_model(model, processor, folder, *how)  # type: ignore[arg-type]
        damage(folder)
        return has_adapter

    monkeypatch.setattr(export_module, "write_model", write_damaged)
    with pytest.raises(SystemExit) as caught:
        main([str(lora_checkpoint), str(out)])
    assert caught.value.code == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("python -m train.export: error: ")]
    assert re.search(message, line), line
    assert contents(out.parent) == before
