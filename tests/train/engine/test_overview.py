"""What a training says of its data before it starts, against an independent count and the labels themselves."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from crop_model.processing_crop_llava import CropLlavaProcessor
from data_prep.common.command_line import parse_config
from data_prep.schema.data_source import DataSource
from train.arguments.data import DataArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.data.collator import Collator
from train.data.samples import load_samples
from train.engine.overview import show_sample
from train.engine.run import build_trainer, train
from train.engine.trainer import PlcTrainer


def write_records(folder: Path, toy_data: Path) -> list[dict[str, object]]:
    """Write two sources: conversations of 1, 2, 3 and 4 turns about an image and one of text; and two of one turn."""
    folder.mkdir(exist_ok=True)
    asked, told = {"from": "human", "value": "what is here ?"}, {"from": "gpt", "value": 'a "role": "assistant" 7'}
    many = [{"image": f"{number}.png", "conversations": [asked, told] * (number + 1)} for number in range(4)]
    many.append({"conversations": [asked, told] * 2})
    sources = []
    for name, records, weight in (("many", many, 2.5), ("few", many[:1] * 2, 0.5)):
        (folder / f"{name}.json").write_text(json.dumps(records))
        source = {"annotations": folder / f"{name}.json", "image_root": toy_data / "images"}
        sources.append({**{key: str(path) for key, path in source.items()}, "weight": weight})
    return sources


@pytest.fixture
def build(plc_words: list[str], toy_data: Path, tmp_path: Path) -> Callable[..., PlcTrainer]:
    source = f"train_data={json.dumps(write_records(tmp_path, toy_data))}"

    def call(make: Callable[..., PlcTrainer], *words: str) -> PlcTrainer:
        kinds = (ModelArguments, DataArguments, PlcTrainingArguments)
        words = (*plc_words, source, "eval_strategy=no", "save_strategy=no", *words)
        return make(*parse_config(kinds, words, prog="test", description=""))

    return call


@pytest.mark.parametrize("split_turns", [True, False])
def test_the_line_is_what_loading_and_training_come_to(
    split_turns: bool, build: Callable[..., PlcTrainer], toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Samples of both modes by reading the data both ways; steps by the trainer that has trained."""
    words = ["max_steps=-1", "num_train_epochs=1.5", "per_device_train_batch_size=2", "gradient_accumulation_steps=2"]
    trainer = build(train, f"split_turns={split_turns}", *words)
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("train_data: "))
    sources = [DataSource(**source) for source in write_records(tmp_path / "again", toy_data)]
    processor = trainer.processing_class
    samples = {mode: len(load_samples(sources, processor, 2048, split_turns=mode)) for mode in (True, False)}
    assert samples == {True: 29, False: 13}
    found = re.fullmatch(
        r"train_data: 7 records, (\d+) samples with split_turns: (true|false), (\d+) steps per epoch, (\d+) in total; "
        r"(\d+) samples with split_turns: (true|false), (\d+) steps per epoch, (\d+) in total",
        line,
    )
    assert found is not None, line
    steps = {True: ("8", "12"), False: ("4", "6")}
    for mode, first in ((split_turns, 1), (not split_turns, 5)):
        assert found.group(*range(first, first + 4)) == (str(samples[mode]), str(mode).lower(), *steps[mode])
    assert int(found[4]) == trainer.state.max_steps == trainer.state.global_step


def test_of_packed_rows_the_other_mode_has_no_steps(
    build: Callable[..., PlcTrainer], capsys: pytest.CaptureFixture
) -> None:
    trainer = build(build_trainer, "max_length=512", "pack_length=512")
    rows = len(trainer.train_dataset)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("train_data: ")]
    assert f"29 samples with split_turns: true in {rows} packed rows, " in line
    assert line.endswith("; 13 samples with split_turns: false")


def test_one_step_is_singular(build: Callable[..., PlcTrainer], capsys: pytest.CaptureFixture) -> None:
    build(build_trainer, "max_steps=-1", "num_train_epochs=1", "per_device_train_batch_size=29")
    out = capsys.readouterr().out
    assert out.count(" 1 step per epoch, 1 in total") == 2 and "1 steps" not in out


def test_only_the_first_process_counts_and_prints(
    build: Callable[..., PlcTrainer], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(PlcTrainingArguments, "process_index", 1)
    monkeypatch.setattr("train.data.samples._count", lambda *_: pytest.fail("counted"))
    build(build_trainer, "split_turns=false")
    assert "train_data: " not in capsys.readouterr().out


def test_the_sample_is_marked_as_its_labels_are(toy_data: Path, tiny_llava: Path) -> None:
    processor = CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=16)
    source = DataSource(str(toy_data / "data.json"), str(toy_data / "images"), str(toy_data / "regions" / "toy"))
    samples, collator = load_samples([source], processor, 512), Collator(processor)
    heading, text = show_sample(samples, collator).split("\n", 1)
    assert f"region {samples[0]['region']} of 40x64" in heading and samples[0]["record"] in heading
    batch = collator([samples[0]])
    supervised = batch["labels"][0]
    marked = re.findall("«(.*?)»", text, re.DOTALL)
    assert marked == [processor.tokenizer.decode(supervised[supervised != -100])]
    assert samples[0]["answer"] in marked[0]
    assert text.count(processor.image_token) == 1 and f"{processor.image_token}x16" in text
    whole = re.sub("[«»]", "", text).replace(f"{processor.image_token}x16", processor.image_token * 16)
    assert processor.tokenizer(whole, add_special_tokens=False)["input_ids"] == batch["input_ids"][0].tolist()


def test_a_sample_that_cannot_be_used_is_left_to_the_training(toy_data: Path, tiny_llava: Path) -> None:
    processor = CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=16)
    source = DataSource(str(toy_data / "data.json"), str(toy_data / "images"))
    samples = load_samples([source], processor, 512)
    assert show_sample(samples, Collator(processor, max_image_pixels=1)) == ""
    assert show_sample(samples, Collator(processor, max_image_pixels=1, skip_bad=True)) == ""
