"""A localizer in training: what it learns from, the words of a call, and what a run leaves."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.common.command_line import parse_config
from train.arguments.data import DataArguments
from train.arguments.localizer import LocalizerModelArguments, LocalizerTrainingArguments
from train.engine.run import build_trainer
from train.engine.trainer import PlcTrainer
from train.localizer import main

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "configs" / "localizer" / "qwen2_vl.jinja"
QUESTIONS = ("Where is the square?", "And what of the rest, at 3, 4?")


@pytest.fixture(scope="session")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 8 questions about 8 images of several sizes, half of them bright: the first cell or all of them."""
    folder = tmp_path_factory.mktemp("lessons")
    records = []
    for number in range(8):
        width, height = 24 + 8 * (number % 4), 48 - 8 * (number % 3)
        pixels = np.random.default_rng(number).integers(0, 60, (height, width, 3), dtype=np.uint8)
        bright = number % 2
        Image.fromarray(pixels + np.uint8(180 * bright)).save(folder / f"{number}.png")
        asked = {"from": "human", "value": f"<image>\n{QUESTIONS[number % 3 % 2]}"}
        answer = {"from": "gpt", "value": "[0, 0, 7, 7]" if bright else "[1, 2, 3, 4]"}
        records.append({"id": number, "image": f"{number}.png", "conversations": [asked, answer]})
    (folder / "data.json").write_text(json.dumps(records))
    return folder


@pytest.fixture(scope="session")
def localizer_words(tiny_qwen2_vl: Path, lessons: Path) -> Callable[..., list[str]]:
    """Makes the words of a call that trains for two steps."""
    source = f"[{{annotations: {lessons / 'data.json'}, image_root: {lessons}}}]"

    def call(folder: Path, *more: str) -> list[str]:
        return [
            f"model={tiny_qwen2_vl}",
            f"chat_template={TEMPLATE}",
            "lora={r: 4, lora_alpha: 8}",
            f"train_data={source}",
            f"output_dir={folder}",
            "max_steps=2",
            "per_device_train_batch_size=4",
            "learning_rate=1e-2",
            "logging_steps=1",
            "save_strategy=no",
            "report_to=none",
            "use_cpu=true",
            "disable_tqdm=true",
            *more,
        ]

    return call


@pytest.fixture(scope="session")
def localizer_long() -> tuple[str, ...]:
    """What makes it a training of 60 steps, of adapter and merger."""
    return ("max_steps=60", "projector_learning_rate=1e-2", "lr_scheduler_type=cosine")


@pytest.fixture(scope="session")
def localizer_run(
    localizer_words: Callable[..., list[str]], localizer_long: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Adapter and merger after 60 steps."""
    folder = tmp_path_factory.mktemp("run")
    main(localizer_words(folder, *localizer_long, "save_strategy=steps", "save_steps=30"))
    return folder


@pytest.fixture(scope="session")
def localizer_trainer(localizer_words: Callable[..., list[str]]) -> Callable[..., PlcTrainer]:
    """Makes the trainer of such a call, before its first step."""

    def build(folder: Path, *more: str) -> PlcTrainer:
        kinds = (LocalizerModelArguments, DataArguments, LocalizerTrainingArguments)
        words = localizer_words(folder, *more)
        return build_trainer(*parse_config(kinds, words, prog="test", description=""))

    return build
