"""Training with real regions: draws that hang on seed, sample and epoch alone; evaluation stays as annotated."""

import dataclasses
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch.utils.data import BatchSampler

from crop_model.regions import Box
from data_prep.common.command_line import parse_config
from data_prep.common.errors import ConfigError, DataError
from data_prep.schema.sample import read_regions, write_regions
from train.arguments.data import DataArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.data.region_augmentation import LOCATED, RegionNoise, RegionNoiseData, WithEpoch, jitter_box
from train.data.sampler import EpochSampler
from train.engine.resume import data_fingerprint
from train.engine.run import build_trainer, train
from train.engine.trainer import PlcTrainer

BOX = [10.0, 20.0, 30.0, 28.0]
STEPS = 6  # an epoch has four


def row(name: str = "a", region: list[float] | None = BOX, located: list[float] | None = None) -> dict[str, Any]:
    return {"sample_id": name, "region": region, "width": 64, "height": 48, LOCATED: located}


# ---- boxes


@st.composite
def boxes(draw: st.DrawFn) -> tuple[Box, int, int]:
    width, height = draw(st.integers(1, 2000)), draw(st.integers(1, 2000))
    x1, y1 = draw(st.floats(0, width - 1)), draw(st.floats(0, height - 1))
    return (x1, y1, draw(st.floats(x1 + 1, width)), draw(st.floats(y1 + 1, height))), width, height


@given(boxes(), st.floats(0, 0.99), st.integers(0, 99))
def test_a_jittered_box_is_inside_its_image_around_the_old_centre(
    case: tuple[Box, int, int], jitter: float, seed: int
) -> None:
    box, width, height = case
    x1, y1, x2, y2 = jitter_box(box, width, height, jitter, random.Random(seed))
    assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    for low, high, first, last, size in ((x1, x2, box[0], box[2], width), (y1, y2, box[1], box[3], height)):
        side = last - first
        assert low <= (first + last) / 2 <= high
        reach = side / 2 * (1 + jitter) ** 2 + 1  # a side of less than a pixel is widened to one
        assert high - low >= min(1.0, size) - 1e-6
        assert low >= (first + last) / 2 - reach and high <= (first + last) / 2 + reach


def test_sides_move_by_themselves_and_sizes_are_even_about_the_annotated_one() -> None:
    drawn = [jitter_box((300.0, 400.0, 400.0, 440.0), 1000, 1000, 0.5, random.Random(seed)) for seed in range(4000)]
    larger = sum((x2 - x1) * (y2 - y1) > 4000 for x1, y1, x2, y2 in drawn)
    left = sum(x1 + x2 < 700 for x1, _, x2, _ in drawn)
    assert 0.45 < larger / 4000 < 0.55 and 0.45 < left / 4000 < 0.55
    assert len({x1 - x2 for x1, _, x2, _ in drawn}) > 3900


@given(boxes(), st.integers(0, 9), st.integers(0, 5))
def test_zero_settings_change_nothing(case: tuple[Box, int, int], seed: int, epoch: int) -> None:
    box, width, height = case
    noise = RegionNoise(seed)
    assert noise.is_off
    given_row = {"sample_id": "x", "region": list(box), "width": width, "height": height, "answer": "7"}
    assert noise.apply(given_row, epoch) == given_row


# ---- draws


@given(st.integers(0, 99), st.integers(0, 9), st.text(min_size=1))
def test_a_draw_hangs_on_seed_sample_and_epoch_alone(seed: int, epoch: int, name: str) -> None:
    noise = RegionNoise(seed, 0.5, 0.3, 0.2)
    before = random.getstate(), torch.get_rng_state()
    drawn = noise.apply(row(name, located=[1.0, 2.0, 3.0, 4.0]), epoch)
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])
    random.seed(0)
    assert noise.apply(row(name, located=[1.0, 2.0, 3.0, 4.0]), epoch) == drawn
    assert LOCATED not in drawn


def test_seeds_samples_and_epochs_differ() -> None:
    drawn = {
        tuple(RegionNoise(seed, 0.5).apply(row(name), epoch)["region"])
        for seed in (0, 1)
        for name in ("a", "b")
        for epoch in (0, 1, 2)
    }
    assert len(drawn) == 12


def test_regions_are_drawn_as_often_as_asked() -> None:
    noise, count = RegionNoise(3, 0.0, localizer=0.5, none=0.2), 4000
    drawn = Counter(
        str(noise.apply(row(str(number), located=[1.0, 2.0, 3.0, 4.0]), 0)["region"]) for number in range(count)
    )
    expected = {"None": 0.2, "[1.0, 2.0, 3.0, 4.0]": 0.5, str(BOX): 0.3}
    assert drawn.keys() == expected.keys()
    assert all(abs(drawn[key] / count - share) < 0.03 for key, share in expected.items())


def test_predictions_are_taken_as_they_are_and_a_question_without_one_keeps_its_region() -> None:
    always = RegionNoise(0, 0.9, localizer=1.0)
    assert always.apply(row(located=[]), 0)["region"] is None
    assert always.apply(row(region=None, located=[1.0, 2.0, 3.0, 4.0]), 0)["region"] == [1.0, 2.0, 3.0, 4.0]
    kept = RegionNoise(0, 0.0, localizer=1.0)
    assert kept.apply(row(located=None), 0)["region"] == BOX
    assert kept.apply(row(region=None, located=None), 0)["region"] is None


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_the_draws_of_one(processes: int) -> None:
    data = RegionNoiseData([row(str(number)) for number in range(16)], RegionNoise(0, 0.5))  # type: ignore[arg-type]
    regions = []
    for epoch in (0, 1):
        sampler = WithEpoch(EpochSampler(16, 1, lambda: epoch), lambda: epoch)  # noqa: B023
        batches = BatchSampler(sampler, 8 // processes, drop_last=False)
        shards = [list(BatchSamplerShard(batches, processes, rank)) for rank in range(processes)]
        numbers = [number for step in zip(*shards, strict=True) for batch in step for number in batch]
        regions.append({data[number]["sample_id"]: tuple(data[number]["region"]) for number in numbers})  # type: ignore
    alone = [
        {str(number): tuple(data.noise.apply(row(str(number)), epoch)["region"]) for number in range(16)}
        for epoch in (0, 1)
    ]
    assert regions == alone
    assert all(alone[0][name] != alone[1][name] for name in alone[0])


# ---- in a run


def arguments(words: Sequence[str]) -> tuple[ModelArguments, DataArguments, PlcTrainingArguments]:
    return parse_config((ModelArguments, DataArguments, PlcTrainingArguments), words, prog="test", description="")


@pytest.fixture
def predictions(toy_data: Path, tmp_path: Path) -> Path:
    """A sidecar of predictions: another box for every question, the whole image for the first one."""
    table = read_regions(toy_data / "regions" / "toy")
    moved = [
        dataclasses.replace(found, region=None if number == 0 else (1.0, 1.0, 9.0, 9.0), boxes=[], method="localizer")
        for number, found in enumerate(table.values())
    ]
    write_regions(tmp_path / "predicted", moved, {})
    return tmp_path / "predicted"


@pytest.fixture
def noisy_words(plc_words: list[str], predictions: Path) -> list[str]:
    noise = ["region_jitter=0.5", f"localizer_regions=[{predictions}]", "localizer_probability=0.3"]
    return [*plc_words, *noise, "global_probability=0.1", f"max_steps={STEPS}", "save_strategy=steps", "save_steps=1"]


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, tuple[str, ...], bytes]]:
    """Step, sample ids and region masks of every batch that is trained on."""
    seen: list[tuple[int, tuple[str, ...], bytes]] = []
    step = PlcTrainer.training_step

    def record(self: PlcTrainer, model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
        mask = inputs["region_mask"].numpy().tobytes()
        seen.append((self.state.global_step, tuple(inputs["sample_ids"]), mask))
        return step(self, model, inputs, *rest)

    monkeypatch.setattr(PlcTrainer, "training_step", record)
    return seen


@pytest.mark.parametrize("more", [[], ["pack_length=2048", "per_device_train_batch_size=1"]], ids=["padded", "packed"])
def test_a_resumed_run_goes_on_with_the_same_regions_to_the_bit(
    more: list[str], noisy_words: list[str], tmp_path: Path, masks: list
) -> None:
    """In the second epoch; and in the first, with data workers that outlive it."""
    words = [*noisy_words, *more]
    train(*arguments(words))
    expected = list(masks)
    weights = load_file(tmp_path / "run" / "final" / "adapter_model.safetensors")
    for step in (3, 5):
        masks.clear()
        again = tmp_path / f"again-{step}"
        shutil.copytree(tmp_path / "run" / f"checkpoint-{step}", again / f"checkpoint-{step}")
        workers = ["dataloader_num_workers=1", "dataloader_persistent_workers=true"] if step == 3 else []
        train(*arguments([*words, f"output_dir={again}", "resume_from_checkpoint=last", *workers]))
        assert masks == expected[step:]
        other = load_file(again / "final" / "adapter_model.safetensors")
        assert all(torch.equal(tensor, other[name]) for name, tensor in weights.items())


def test_another_seed_of_the_noise_trains_another_model(
    noisy_words: list[str], tmp_path: Path, masks: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: the comparisons above see regions that are drawn otherwise."""
    train(*arguments([*noisy_words, "max_steps=1"]))
    monkeypatch.setattr("train.data.region_augmentation.RegionNoise.is_off", True)
    train(*arguments([*noisy_words, "max_steps=1", f"output_dir={tmp_path / 'other'}"]))
    assert masks[0][:2] == masks[1][:2]
    assert masks[0][2] != masks[1][2]


def test_evaluation_sees_the_annotated_regions(noisy_words: list[str], toy_data: Path) -> None:
    trainer = build_trainer(*arguments(noisy_words))
    assert isinstance(trainer.train_dataset, RegionNoiseData)
    table = read_regions(toy_data / "regions" / "toy")
    for sample in trainer.eval_dataset:  # type: ignore[union-attr]
        region = table[sample["sample_id"]].region
        assert sample["region"] == (None if region is None else list(region))


def test_without_noise_the_data_are_what_they_were(plc_words: list[str]) -> None:
    trainer = build_trainer(*arguments(plc_words))
    assert not isinstance(trainer.train_dataset, RegionNoiseData)
    assert list(trainer._get_train_sampler()) == list(trainer._order_of(trainer.train_dataset))  # type: ignore


def test_other_predictions_are_other_data(noisy_words: list[str], predictions: Path) -> None:
    first = build_trainer(*arguments(noisy_words)).train_dataset.data  # type: ignore[union-attr]
    table = read_regions(predictions)
    write_regions(
        predictions, [dataclasses.replace(found, region=(1.0, 1.0, 9.0, 8.0)) for found in table.values()], {}
    )
    second = build_trainer(*arguments(noisy_words)).train_dataset.data  # type: ignore[union-attr]
    assert data_fingerprint(first) != data_fingerprint(second)
    assert [region for region in first[LOCATED] if region == []] == [[]]


def test_predictions_give_a_size_to_samples_without_a_sidecar(
    noisy_words: list[str], toy_data: Path, tmp_path: Path
) -> None:
    """The file's stem is their source's name then."""
    shutil.copy(toy_data / "data.json", tmp_path / "toy.json")
    source = {"annotations": str(tmp_path / "toy.json"), "image_root": str(toy_data / "images")}
    words = [*noisy_words, f"train_data=[{json.dumps(source)}]", "localizer_probability=0.9"]
    trainer = build_trainer(*arguments(words))
    samples = [trainer.train_dataset[0, number] for number in range(16)]
    assert sum(sample["region"] is not None for sample in samples) > 8
    trainer.data_collator(samples)  # every image has the size that its prediction was made for


WRONG = {
    "jitter": (["region_jitter=1"], "region_jitter: expected a number from 0 to below 1, got 1.0"),
    "probability": (["global_probability=-0.1"], "global_probability: expected a probability, got -0.1"),
    "sum": (["global_probability=0.8"], "localizer_probability: adds up with global_probability to more than 1"),
    "alone": (["localizer_regions=[]"], "line: localizer_probability: goes together with localizer_regions"),
    "never": (["localizer_probability=0"], "line: localizer_regions: goes together with localizer_probability"),
    "missing": (["localizer_regions=[nowhere]"], "localizer_regions: no such folder: nowhere"),
    "conversations": (["split_turns=false"], "localizer_regions: predictions are of single questions"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_key_is_named(case: str, noisy_words: list[str]) -> None:
    words, message = WRONG[case]
    with pytest.raises(ConfigError, match=re.escape(message)):
        arguments([*noisy_words, *words])


def test_predictions_of_other_questions_are_refused(noisy_words: list[str], predictions: Path) -> None:
    table = read_regions(predictions)
    others = [dataclasses.replace(found, sample_id=found.sample_id[::-1]) for found in table.values()]
    write_regions(predictions, others, {})
    with pytest.raises(DataError, match="predicted: holds none of the questions of train_data"):
        build_trainer(*arguments(noisy_words))
    wider = [dataclasses.replace(found, width=found.width + 1) for found in table.values()]
    write_regions(predictions, wider, {})
    with pytest.raises(DataError, match=r"predicted: sample \w+: the image is \d+x\d+, its annotation \d+x\d+"):
        build_trainer(*arguments(noisy_words))
