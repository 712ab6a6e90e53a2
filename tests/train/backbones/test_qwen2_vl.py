"""Qwen2-VL as a localizer: its batches, its positions, merged, exported, asked, and filling a sidecar."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import Qwen2VLForConditionalGeneration

from crop_model.localization.generated import Localizer
from data_prep.localize import main as localize
from data_prep.schema.sample import RegionAnnotation, read_regions, sample_id, write_regions
from train.backbones.checkpoint import Checkpoint
from train.backbones.localizers import load_localizer
from train.engine.trainer import PlcTrainer
from train.export import main as export

pytestmark = pytest.mark.xdist_group("localizer_run")
QUESTIONS = ("Where is the square?", "What of the rest, at 3, 4?")


# ---- batches


def test_the_loss_sees_the_answer_alone(localizer_trainer: Callable[..., PlcTrainer], tmp_path: Path) -> None:
    trainer = localizer_trainer(tmp_path)
    rows = [trainer.train_dataset[number] for number in range(4)]
    batch = trainer.data_collator(rows)
    tokenizer = trainer.processing_class.tokenizer
    for row, ids, labels in zip(rows, batch["input_ids"], batch["labels"], strict=True):
        assert tokenizer.decode(labels[labels >= 0]) == row["answer"] + "<|im_end|>"
        text = tokenizer.decode(ids, skip_special_tokens=False).replace("<|endoftext|>", "")
        text = re.sub(r"(<\|image_pad\|>)+", "<|image_pad|>", text)
        assert text == (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
            f"<|vision_start|><|image_pad|><|vision_end|>{row['question']}<|im_end|>\n"
            f"<|im_start|>assistant\n{row['answer']}<|im_end|>\n"
        )
        assert len(ids) <= row["length"] + 16  # a length is an upper bound, with the most tokens of an image


def test_a_batch_is_each_sample_alone(localizer_trainer: Callable[..., PlcTrainer], tmp_path: Path) -> None:
    """Positions by place in the image, and padding on the right, change no logit; other positions do."""
    trainer = localizer_trainer(tmp_path)
    model, collate = trainer.model.eval(), trainer.data_collator
    rows = [trainer.train_dataset[number] for number in range(4)]

    def logits(batch: dict[str, Any]) -> torch.Tensor:
        inputs = {key: value for key, value in batch.items() if key not in ("sample_ids", "labels")}
        with torch.no_grad():
            return model(**inputs).logits

    together = logits(collate(rows))
    for number, row in enumerate(rows):
        batch = collate([row])
        alone = logits(batch)
        torch.testing.assert_close(together[number, : alone.shape[1]], alone[0], rtol=0, atol=1e-4)
        text_like = torch.arange(alone.shape[1]).expand(3, 1, -1)
        assert (logits(batch | {"position_ids": text_like}) - alone).abs().max() > 1e-2


# ---- asked


def images_and_questions(lessons: Path) -> tuple[list[Image.Image], list[str]]:
    images = [Image.open(lessons / f"{number}.png").convert("RGB") for number in range(6)]
    return images, [QUESTIONS[number % 2] * (1 + number % 3) for number in range(6)]


def test_a_left_padded_batch_is_each_question_alone(localizer_run: Path, lessons: Path) -> None:
    localizer = load_localizer(str(localizer_run / "final"), torch.float32, torch.device("cpu"))
    assert isinstance(localizer.model, Qwen2VLForConditionalGeneration)  # merged
    images, questions = images_and_questions(lessons)
    together = localizer.predict(images, questions, batch_size=6)
    for image, question, located in zip(images, questions, together, strict=True):
        (alone,) = localizer.predict([image], [question])
        assert alone.cells == located.cells
        assert alone.confidence == pytest.approx(located.confidence, rel=1e-3)
    assert len({located.confidence for located in together}) == 6  # image and question are seen


def test_a_merged_adapter_computes_the_same(localizer_run: Path) -> None:
    checkpoint = Checkpoint.open(localizer_run / "final")
    beside, merged = checkpoint.model(), checkpoint.merged()
    base = Qwen2VLForConditionalGeneration.from_pretrained(
        json.loads((localizer_run / "final" / "adapter_config.json").read_text())["base_model_name_or_path"]
    )
    ids = torch.arange(12)[None]
    with torch.no_grad():
        expected = beside(input_ids=ids).logits
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, rtol=0, atol=1e-4)
        assert (base(input_ids=ids).logits - expected).abs().max() > 0.1


@pytest.fixture(scope="session")
def exported(localizer_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "localizer"
    export([str(localizer_run / "final"), str(folder)])
    return folder


STRANGER = """
import json, sys
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
folder, image, question = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(folder).eval()
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
content = [{"type": "image", "image": Image.open(image)}, {"type": "text", "text": question}]
inputs = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=True, return_dict=True,
    add_generation_prompt=True, processor_kwargs={"return_tensors": "pt"})
written = model.generate(**inputs, max_new_tokens=12, do_sample=False)[:, inputs["input_ids"].shape[1] :]
assert "crop_model" not in sys.modules
print(processor.batch_decode(written)[0])
"""


def test_an_export_is_replaced_and_takes_no_other_keys(
    localizer_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(localizer_run / "final"), str(tmp_path / "out")]
    export(words)
    export(words)
    for word in ("merge=false", "max_shard_size=1GB", "push_to=owner/name"):
        with pytest.raises(SystemExit) as ended:
            export([*words, word])
        assert ended.value.code == 2
        assert f"{word.partition('=')[0]}: not read for a Qwen2-VL" in capsys.readouterr().err


def test_an_export_answers_the_same(exported: Path, localizer_run: Path, lessons: Path) -> None:
    images, questions = images_and_questions(lessons)
    expected = load_localizer(str(localizer_run / "final"), torch.float32, torch.device("cpu")).predict(
        images, questions
    )
    for located, other in zip(
        Localizer.from_pretrained(str(exported)).predict(images, questions), expected, strict=True
    ):
        assert located.cells == other.cells
        assert located.confidence == pytest.approx(other.confidence, rel=1e-4)


@pytest.mark.integration
def test_an_export_loads_without_this_project(exported: Path, lessons: Path, tmp_path: Path) -> None:
    """With the Auto classes alone, and there nothing keeps the answer in the grid."""
    images, questions = images_and_questions(lessons)
    (expected,) = Localizer.from_pretrained(str(exported)).predict(images[:1], questions[:1])
    command = [sys.executable, "-I", "-c", STRANGER, str(exported), str(lessons / "0.png"), questions[0]]
    environment = {"HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(list(expected.cells)), done.stderr


def test_it_fills_a_sidecar(exported: Path, lessons: Path, tmp_path: Path) -> None:
    images, questions = images_and_questions(lessons)
    rows = []
    for number, (image, question) in enumerate(zip(images, questions, strict=True)):
        key, name = sample_id("toy", f"{number}.png", 0, question), f"{number}.png"
        rows.append(
            RegionAnnotation(key, "toy", name, 0, question, *image.size, [], None, "global", 1, ["no_evidence"])
        )
    write_regions(tmp_path / "regions", rows, {})
    words = [str(tmp_path / "regions"), str(tmp_path / "out"), f"image_root={lessons}", "max_pixels=576"]
    localize([*words, f"localizer={exported}"])
    smaller = Localizer.from_pretrained(str(exported), max_pixels=576).predict(images, questions)
    filled = {row.image: row for row in read_regions(tmp_path / "out").values()}
    for number, located in enumerate(smaller):
        row = filled[f"{number}.png"]
        assert row.method == "localizer" and row.score == pytest.approx(located.confidence, rel=1e-4)
        assert row.region == (None if located.region is None else pytest.approx(located.region))
