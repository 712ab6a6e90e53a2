"""Qwen2-VL through a localizer's whole life: trained, saved, merged, exported, asked, and filling a sidecar."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2VLForConditionalGeneration

from crop_model.localizer import Localizer
from data_prep.config import parse_config
from data_prep.localize import main as localize
from data_prep.sample import RegionAnnotation, read_regions, sample_id, write_regions
from train.arguments import DataArguments
from train.checkpoint import load_model, module_group
from train.export import main as export
from train.localization import load_localizer
from train.localizer import LocalizerModelArguments, LocalizerTrainingArguments, localizer_parts, main
from train.plc import build_trainer
from train.qwen2_vl import load_qwen2_vl
from train.trainer import PlcTrainer

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "configs" / "localizer" / "qwen2_vl.jinja"
LONG = ("max_steps=60", "projector_learning_rate=1e-2", "lr_scheduler_type=cosine")
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
def words(tiny_qwen2_vl: Path, lessons: Path) -> Callable[..., list[str]]:
    """Makes the words of a call that trains for two steps."""
    source = f"[{{annotations: {lessons / 'data.json'}, image_root: {lessons}}}]"

    def call(run: Path, *more: str) -> list[str]:
        return [
            f"model={tiny_qwen2_vl}",
            f"chat_template={TEMPLATE}",
            "lora={r: 4, lora_alpha: 8}",
            f"train_data={source}",
            f"output_dir={run}",
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


def build(words: list[str]) -> PlcTrainer:
    kinds = (LocalizerModelArguments, DataArguments, LocalizerTrainingArguments)
    return build_trainer(*parse_config(kinds, words, prog="test", description=""), localizer_parts)


@pytest.fixture(scope="session")
def run(words: Callable[..., list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adapter and merger after 60 steps."""
    folder = tmp_path_factory.mktemp("run")
    main(words(folder, *LONG, "save_strategy=steps", "save_steps=30"))
    return folder


def losses(folder: Path) -> list[float]:
    return [x["loss"] for x in map(json.loads, (folder / "train_log.jsonl").read_text().splitlines()) if "loss" in x]


def test_the_loss_falls_and_tokens_are_counted(run: Path) -> None:
    written = losses(run)
    assert len(written) == 60
    assert sum(written[-5:]) < 0.5 * sum(written[:5])
    line = json.loads((run / "train_log.jsonl").read_text().splitlines()[0])
    assert 4 <= line["visual_tokens_per_sample"] <= 16 and line["mfu"] is None


def test_it_goes_on_from_a_checkpoint_as_it_went(run: Path, words: Callable[..., list[str]], tmp_path: Path) -> None:
    main(words(tmp_path, *LONG, f"resume_from_checkpoint={run / 'checkpoint-30'}"))
    assert losses(tmp_path) == pytest.approx(losses(run)[30:], rel=1e-5)
    expected = load_qwen2_vl(run / "final")[0].state_dict()
    for name, tensor in load_qwen2_vl(tmp_path / "final")[0].state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6, msg=name)


# ---- what trains, on what


def test_lora_is_in_the_language_models_layers_alone(words: Callable[..., list[str]], tmp_path: Path) -> None:
    trainer = build(words(tmp_path))
    adapted = {name.partition(".lora_")[0] for name, _ in trainer.model.named_parameters() if ".lora_" in name}
    linears = {
        name
        for name, module in trainer.model.named_modules()
        if hasattr(module, "base_layer") and isinstance(module.base_layer, torch.nn.Linear)
    }
    assert adapted == linears and len(linears) == 2 * 7
    assert all(re.search(r"\.language_model\.layers\.\d\.(self_attn|mlp)\.", name) for name in linears)
    assert {module_group(n) for n, p in trainer.model.named_parameters() if p.requires_grad} == {"lora"}


TRAINED = {
    "adapter and merger": (["projector_learning_rate=1e-2"], {"lora", "projector"}),
    "merger alone": (["lora=null", "projector_learning_rate=1e-2"], {"projector"}),
    "language model": (["lora=null", "full=true", "bf16=true"], {"language_model"}),
    "both whole": (["lora=null", "full=true", "projector_learning_rate=1e-2"], {"language_model", "projector"}),
}


@pytest.mark.parametrize("case", TRAINED)
def test_what_trains_moves_and_the_rest_stays(case: str, words: Callable[..., list[str]], tmp_path: Path) -> None:
    more, groups = TRAINED[case]
    trainer = build(words(tmp_path, "max_steps=3", "lr_scheduler_type=constant", *more))
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(before[name], p)}
    assert moved == trained
    assert {module_group(name) for name in trained} == groups
    trainer.save_final()
    model, _ = load_qwen2_vl(tmp_path / "final")
    ids = torch.arange(12)[None]
    trainer.model.eval()
    with torch.no_grad():
        expected = trainer.model(input_ids=ids).logits.float()
        torch.testing.assert_close(
            model(input_ids=ids).logits, expected, rtol=0, atol=0.2 if "bf16=true" in more else 1e-4
        )


def test_the_loss_sees_the_answer_alone(words: Callable[..., list[str]], tmp_path: Path) -> None:
    trainer = build(words(tmp_path))
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


def test_a_batch_is_each_sample_alone(words: Callable[..., list[str]], tmp_path: Path) -> None:
    """Positions by place in the image, and padding on the right, change no logit; other positions do."""
    trainer = build(words(tmp_path))
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


def test_a_left_padded_batch_is_each_question_alone(run: Path, lessons: Path) -> None:
    localizer = load_localizer(str(run / "final"), torch.float32, torch.device("cpu"))
    assert isinstance(localizer.model, Qwen2VLForConditionalGeneration)  # merged
    images, questions = images_and_questions(lessons)
    together = localizer.predict(images, questions, batch_size=6)
    for image, question, located in zip(images, questions, together, strict=True):
        (alone,) = localizer.predict([image], [question])
        assert alone.cells == located.cells
        assert alone.confidence == pytest.approx(located.confidence, rel=1e-3)
    assert len({located.confidence for located in together}) == 6  # image and question are seen


def test_a_merged_adapter_computes_the_same(run: Path) -> None:
    beside = load_model(str(run / "final"), Qwen2VLForConditionalGeneration).eval()
    merged, _ = load_qwen2_vl(run / "final")
    base = Qwen2VLForConditionalGeneration.from_pretrained(
        json.loads((run / "final" / "adapter_config.json").read_text())["base_model_name_or_path"]
    )
    ids = torch.arange(12)[None]
    with torch.no_grad():
        expected = beside(input_ids=ids).logits
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, rtol=0, atol=1e-4)
        assert (base(input_ids=ids).logits - expected).abs().max() > 0.1


@pytest.fixture(scope="session")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "localizer"
    export([str(run / "final"), str(folder)])
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


def test_an_export_answers_the_same(exported: Path, run: Path, lessons: Path) -> None:
    images, questions = images_and_questions(lessons)
    expected = load_localizer(str(run / "final"), torch.float32, torch.device("cpu")).predict(images, questions)
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


# ---- calls

WRONG_CALLS = {
    "a compressor": (["compressor_type=region_ratio"], "compressor_type: not of a Qwen2-VL"),
    "packed rows": (["pack_length=4096"], "pack_length: not of a Qwen2-VL"),
    "jitter": (["region_jitter=0.5"], "region_jitter: not of a Qwen2-VL"),
    "skipping": (["on_bad_sample=skip"], "on_bad_sample: not of a Qwen2-VL"),
    "adapter and whole": (["full=true"], "full: lora must be null"),
    "nothing": (["lora=null"], "lora: nothing trains"),
    "too few pixels": (["min_pixels=10"], "min_pixels: 10 is outside 64..1024"),
    "the checkpoint's own template": (["chat_template=null"], "chat template: no {% generation %}"),
    "no model": (["model=gone/nowhere"], "model gone/nowhere: "),
    "a sample too long": (["max_length=40"], "tokens, above max_length 40"),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_wrong_calls(
    case: str, words: Callable[..., list[str]], tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: Any
) -> None:
    def load_no_model(*args: object, **kwargs: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Qwen2VLForConditionalGeneration, "from_pretrained", load_no_model)
    more, message = WRONG_CALLS[case]
    with pytest.raises(SystemExit) as caught:
        main(words(tmp_path, *more))
    assert caught.value.code == 2
    (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("python -m train.localizer: error: ")]
    assert message in line


def test_a_question_without_an_image_is_a_failed_run(
    words: Callable[..., list[str]], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    asked = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "[0, 0, 1, 1]"}]
    (tmp_path / "text.json").write_text(json.dumps([{"conversations": asked}]))
    with pytest.raises(SystemExit) as caught:
        main(words(tmp_path / "run", f"train_data=[{{annotations: {tmp_path / 'text.json'}}}]"))
    assert caught.value.code == 1
    assert re.search("text.json: record 0.*: no image to find a region in", capfd.readouterr().err)


def test_a_llava_is_a_localizer_too(
    tiny_llava: Path, toy_data: Path, words: Callable[..., list[str]], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    source = f"[{{annotations: {toy_data / 'data.json'}, image_root: {toy_data / 'images'}}}]"
    llava = [f"model={tiny_llava}", "chat_template=null", "compressor_type=none", f"train_data={source}"]
    with pytest.raises(SystemExit):
        main(words(tmp_path, *llava, "max_pixels=576"))
    assert "max_pixels: of Qwen2-VL alone" in capfd.readouterr().err
    main(words(tmp_path, *llava, "lora=null", "full=true"))
    rates = json.loads((tmp_path / "train_log.jsonl").read_text().splitlines()[0])["lr"]
    assert rates == {"language_model": 1e-2}
