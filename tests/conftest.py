"""What tests of several packages share: a LLaVA in llava-hf format, built, trained and saved in a second."""

import json
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from hypothesis import settings
from peft import LoraConfig
from PIL import Image

from data_prep.schema.sample import RegionAnnotation, sample_id, write_regions
from tests.tiny_models import save_llava, save_qwen2_vl

settings.register_profile("untimed", deadline=None)  # how fast an example runs is the machine's affair
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def sample_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tables of samples are cached in a folder of the tests' own, by launched processes too."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(folder))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        yield folder


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a LLaVA with 8x8 patches, in llava-hf format."""
    folder = tmp_path_factory.mktemp("tiny") / "llava"
    save_llava(folder)
    return folder


QUESTIONS = (
    "what is the digit ?",
    "what is the colour of the square here ?",
    "how many red ?",
    "what shape is there ?",
)
ANSWERS = ("7", "blue and green", "3 of 12", "round")


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 16 questions about 16 images of several sizes: data.json (LLaVA), images/, regions/toy.

    Every third question has no region.
    """
    folder = tmp_path_factory.mktemp("toy")
    (folder / "images").mkdir()
    records, annotations = [], []
    random = np.random.default_rng(0)
    for number in range(16):
        width, height = 40 + 3 * number, 64 - 2 * number
        name, question = f"{number}.png", QUESTIONS[number % 4]
        pixels = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        asked = {"from": "human", "value": f"<image>\n{question}", "type": question.split()[0]}
        records.append(
            {"id": number, "image": name, "conversations": [asked, {"from": "gpt", "value": ANSWERS[number % 4]}]}
        )
        box = None if number % 3 == 2 else (number, 2.0, number + 20.0, 18.0)
        boxes = [] if box is None else [box]
        key = sample_id("toy", name, 0, question)
        annotations.append(RegionAnnotation(key, "toy", name, 0, question, width, height, boxes, box, "human"))
    (folder / "data.json").write_text(json.dumps(records))
    write_regions(folder / "regions" / "toy", annotations, {})
    return folder


@pytest.fixture(scope="session")
def tiny_crop_llava(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_llava` with a compressor of 16 tokens whose weights are all drawn at random, saved whole."""
    from train.backbones.checkpoint import Checkpoint  # here: it takes seconds, and not every package's tests need it

    folder = tmp_path_factory.mktemp("tiny") / "crop"
    checkpoint = Checkpoint.open(tiny_llava, token_budget=16, compressor_num_attention_heads=4)
    model, processor = checkpoint.model(), checkpoint.processor()
    torch.manual_seed(1)
    for parameter in model.model.compressor.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def lora_checkpoint(tiny_crop_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter, compressor and projector with random weights, saved as the Trainer saves them."""
    from train.backbones.base import LANGUAGE_MODEL_LINEARS  # here: as above
    from train.backbones.checkpoint import Checkpoint

    folder = tmp_path_factory.mktemp("run") / "final"
    checkpoint = Checkpoint.open(tiny_crop_llava)
    lora = LoraConfig(r=4, target_modules=LANGUAGE_MODEL_LINEARS)
    model = checkpoint.trainable(("compressor", "projector"), lora)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    model.config.save_pretrained(folder)
    checkpoint.processor().save_pretrained(folder)
    return folder


@pytest.fixture
def plc_words(training_words: list[str], tmp_path: Path) -> list[str]:
    """`training_words` for a run in a folder of the test's own."""
    return [*training_words, f"output_dir={tmp_path / 'run'}"]


@pytest.fixture(scope="session")
def training_words(tiny_crop_llava: Path, toy_data: Path) -> list[str]:
    """The words of a call of `train.plc` that trains LoRA, compressor and projector for two steps, but `output_dir`."""
    source = {
        "annotations": str(toy_data / "data.json"),
        "image_root": str(toy_data / "images"),
        "regions": str(toy_data / "regions" / "toy"),
    }
    return [
        f"model={tiny_crop_llava}",
        "token_budget=16",
        "compressor_num_attention_heads=4",
        "lora={r: 4, lora_alpha: 8}",
        f"train_data=[{json.dumps(source)}]",
        f"eval_data=[{json.dumps(source)}]",
        "max_steps=2",
        "per_device_train_batch_size=4",
        "learning_rate=1e-2",
        "compressor_learning_rate=2e-2",
        "projector_learning_rate=3e-2",
        "weight_decay=0.01",
        "logging_steps=1",
        "save_strategy=no",
        "report_to=none",
        "use_cpu=true",
        "disable_tqdm=true",
    ]


@pytest.fixture(scope="session")
def tiny_qwen2_vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a Qwen2-VL."""
    folder = tmp_path_factory.mktemp("tiny") / "qwen2_vl"
    save_qwen2_vl(folder)
    return folder
