"""An export answers the data's questions in a fresh process and draws them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from train.backbones.checkpoint import Checkpoint
from train.export import main as export
from train.pictures.card import PANEL
from train.publishing import exporter as export_module

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.integration


def test_an_export_answers_and_draws(
    tiny_crop_llava: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "prove", lambda *arguments: 0.0)  # tests/integration/test_export.py has it
    export([str(tiny_crop_llava), str(tmp_path / "export")])
    source = {
        "annotations": str(toy_data / "data.json"),
        "image_root": str(toy_data / "images"),
        "regions": str(toy_data / "regions" / "toy"),
    }
    picture = tmp_path / "pictures" / "regions.png"
    words = [str(tmp_path / "export"), str(picture), f"eval_data=[{json.dumps(source)}]", "count=3", "max_new_tokens=3"]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "train.answer", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("Q: ", "A: "))]
    assert len(lines) == 6
    assert lines[1].removeprefix("A: ").split("   (expected:")[0].strip() == first_answer(tiny_crop_llava, toy_data)
    with Image.open(picture) as sheet:
        assert sheet.width > 4 * PANEL and sheet.height > 2 * PANEL  # two by two


@torch.no_grad()
def first_answer(checkpoint: Path, data: Path) -> str:
    opened = Checkpoint.open(checkpoint)
    model, processor = opened.model(), opened.processor()
    record = json.loads((data / "data.json").read_text())[0]
    text = "USER: " + record["conversations"][0]["value"] + " ASSISTANT:"
    image = Image.open(data / "images" / record["image"])
    inputs = processor(images=[image], text=[text], regions=[(0.0, 2.0, 20.0, 18.0)], return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    return processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
