"""Packing: every sample once, rows that fit, and a step that is the unpacked step to rounding."""

import json
import random
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler, DataLoader

from crop_model.processing_crop_llava import CropLlavaProcessor
from data_prep.common.command_line import parse_config
from data_prep.common.errors import ConfigError
from data_prep.schema.data_source import DataSource
from train.arguments.data import DataArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.backbones.checkpoint import Checkpoint
from train.data.collator import Collator
from train.data.packing import PackedRows, plan_rows
from train.data.samples import load_samples
from train.engine.packed_attention import BY_SAMPLE, attend_by_sample, use_attention_by_sample
from train.engine.run import build_trainer
from train.engine.trainer import PlcTrainer

BUDGET = 16


def build(words: list[str], *more: str) -> PlcTrainer:
    kinds = (ModelArguments, DataArguments, PlcTrainingArguments)
    return build_trainer(*parse_config(kinds, [*words, *more], prog="test", description=""))


# ---- the plan


@given(st.lists(st.integers(1, 64), min_size=1, max_size=80), st.integers(64, 200), st.integers(0, 3))
def test_every_sample_is_in_one_row_and_every_row_fits(lengths: list[int], pack_length: int, seed: int) -> None:
    rows = plan_rows(lengths, pack_length, seed)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    assert max(sum(lengths[index] for index in row) for row in rows) <= pack_length
    assert rows == plan_rows(lengths, pack_length, seed)
    if len(rows) > 1:  # else the second sample of a pair would have gone to the first one's row
        filled = sorted(sum(lengths[index] for index in row) for row in rows)
        assert filled[0] + filled[1] > pack_length


def test_rows_are_full_and_windows_differ_by_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.data.packing.WINDOW", 500)
    draw = random.Random(0)
    lengths = [min(2048, int(draw.lognormvariate(5, 0.7)) + 64) for _ in range(3000)]
    rows = plan_rows(lengths, 2048, seed=0)
    assert sum(lengths) / (2048 * len(rows)) > 0.97
    assert {frozenset(row) for row in rows} != {frozenset(row) for row in plan_rows(lengths, 2048, seed=1)}


# ---- rows of real samples


@pytest.fixture(scope="module")
def mixed_words(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """`train_data` of text alone, one image and several, with regions and without."""
    folder = tmp_path_factory.mktemp("mixed")
    records = json.loads((toy_data / "data.json").read_text())
    for number in range(5):
        words = "what is the colour of the square here ? " * (number + 1)
        turns = [{"from": "human", "value": words}, {"from": "gpt", "value": "red " * (number + 2)}]
        records.append({"conversations": turns * (1 + number % 2)})
        pictures = [f"{number + shift}.png" for shift in range(2 + number % 2)]
        turns = [
            {"from": "human", "value": "<image>" * len(pictures) + "how many ?"},
            {"from": "gpt", "value": "3 of 12"},
        ]
        records.append({"image": pictures, "conversations": turns})
    (folder / "data.json").write_text(json.dumps(records))
    source = {
        "annotations": folder / "data.json",
        "image_root": toy_data / "images",
        "regions": toy_data / "regions/toy",
    }
    return f"train_data=[{json.dumps({key: str(path) for key, path in source.items()})}]"


@pytest.fixture(scope="module")
def samples(mixed_words: str, tiny_llava: Path) -> Any:
    processor = CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=BUDGET)
    (source,) = json.loads(mixed_words.removeprefix("train_data="))
    return load_samples([DataSource(**source)], processor, max_length=512)


@pytest.mark.parametrize("kind", ["text", "several images", "mixed"])
def test_a_packed_step_is_the_unpacked_step(kind: str, samples: Any, tiny_crop_llava: Path) -> None:
    """Loss to 1e-6 and every gradient to 1e-5, in fp32; and the packed row without its positions is another step.

    In one row, and in rows of several lengths one of which has no sample; by transformers' mask and sample by sample.
    """
    checkpoint = Checkpoint.open(tiny_crop_llava)
    model, processor = checkpoint.model(), checkpoint.processor()
    model.train()
    chosen = {
        "text": [row for row in samples if not row["images"]],
        "several images": [row for row in samples if len(row["images"]) > 1],
        "mixed": [samples[index] for index in (0, 17, 2, 16, 18, 5)],
    }[kind]
    assert len(chosen) > 3
    collator = Collator(processor)

    def step(items: list[Any], drop: str = "", by_sample: bool = False) -> tuple[float, dict[str, torch.Tensor]]:
        batch = collator(items)
        if by_sample:
            batch["sample_lengths"] = [[tokens for tokens, _ in row] for row in batch["sample_sizes"]]
        for key in ("sample_ids", "sample_sizes", drop):
            batch.pop(key, None)
        targets = (batch["labels"] != -100).sum()
        model.zero_grad()
        loss = model(**batch, num_items_in_batch=targets).loss
        loss.backward()
        return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    loss, gradients = step(chosen)
    for by_sample, items in product((False, True), ([chosen], [chosen[:2], chosen[2:], []])):
        if by_sample:
            use_attention_by_sample(model.model.language_model)
        packed_loss, packed_gradients = step(items, by_sample=by_sample)
        assert packed_loss == pytest.approx(loss, abs=1e-6)
        assert packed_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(packed_gradients[name], gradient, rtol=0, atol=1e-5, msg=name)
    for key in ("position_ids", "use_cache"):
        assert abs(step([chosen], drop=key)[0] - loss) > 1e-4


def test_a_packed_batch(samples: Any, tiny_llava: Path) -> None:
    processor = CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=BUDGET)
    rows = [samples[index] for index in (0, 16, 17, 3)]
    collator = Collator(processor)
    batch, alone = collator([rows[:3], rows[3:], []]), [collator([row]) for row in rows]
    lengths = [row["length"] for row in rows]
    sizes = [(length, len(row["images"])) for length, row in zip(lengths, rows, strict=True)]
    assert batch["sample_sizes"] == [sizes[:3], sizes[3:], []]
    assert batch["sample_ids"] == [row["sample_id"] for row in rows]
    assert "attention_mask" not in batch
    for name, padding in (("input_ids", processor.tokenizer.pad_token_id), ("labels", -100)):
        joined = torch.cat([one[name][0] for one in alone[:3]])
        assert batch[name].shape == (3, len(joined))
        assert torch.equal(batch[name][0], joined)
        assert torch.equal(batch[name][1, : lengths[3]], alone[3][name][0])
        assert (batch[name][1, lengths[3] :] == padding).all()
        assert (batch[name][2] == padding).all()
    positions = [place for length in lengths[:3] for place in range(length)]
    assert batch["position_ids"][0].tolist() == positions
    assert not batch["position_ids"][1, lengths[3] :].any()
    for name in ("pixel_values", "region_mask"):
        assert torch.equal(batch[name], torch.cat([one[name] for one in alone if name in one]))


# ---- a run


@pytest.mark.parametrize(("processes", "size"), [(1, 4), (2, 2), (4, 1)])
def test_every_sample_once_an_epoch_whatever_the_processes(samples: Any, processes: int, size: int) -> None:
    rows = PackedRows(samples, 128, seed=3, global_batch=4)
    assert len(rows) % 4 == 0
    shards = [
        list(BatchSamplerShard(BatchSampler(range(len(rows)), size, drop_last=False), processes, rank))
        for rank in range(processes)
    ]
    updates = [[rows[number] for batch in batches for number in batch] for batches in zip(*shards, strict=True)]
    seen = Counter(sample["sample_id"] for update in updates for row in update for sample in row)
    assert seen == Counter(samples["sample_id"][:])
    alone = PackedRows(samples, 128, seed=3, global_batch=4)
    assert updates == [[alone[number] for number in range(start, start + 4)] for start in range(0, len(alone), 4)]


def test_workers_do_not_change_the_batches(samples: Any, tiny_llava: Path) -> None:
    processor = CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=BUDGET)
    rows = PackedRows(samples, 128, seed=3, global_batch=2)
    loaded = [list(DataLoader(rows, 2, collate_fn=Collator(processor), num_workers=workers)) for workers in (0, 1, 2)]
    for other in loaded[1:]:
        for batch, same in zip(loaded[0], other, strict=True):
            assert batch.keys() == same.keys()
            assert all(torch.equal(x, same[key]) if torch.is_tensor(x) else x == same[key] for key, x in batch.items())


def test_a_packed_run_learns_what_a_padded_one_does(plc_words: list[str], mixed_words: str, tmp_path: Path) -> None:
    """One update with all samples, several micro-batches against one: the order within it does not matter."""
    words = [*plc_words, mixed_words, "max_steps=1", "optim=sgd", "lr_scheduler_type=constant", "max_grad_norm=0"]
    words += ["train_sampling_strategy=sequential", "logging_steps=1"]
    padded = build(words, "per_device_train_batch_size=26", f"output_dir={tmp_path / 'padded'}")
    packed = build(
        words, "per_device_train_batch_size=1", "gradient_accumulation_steps=8", "pack_length=512", "max_length=512"
    )
    assert 2 <= sum(bool(row) for row in packed.train_dataset.rows) < 8
    text_configs = [trainer.model.config.get_text_config() for trainer in (padded, packed)]
    assert [config._attn_implementation for config in text_configs] == ["sdpa", BY_SAMPLE]
    assert padded.train().training_loss == pytest.approx(packed.train().training_loss, abs=1e-6)
    for (name, one), other in zip(padded.model.named_parameters(), packed.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6, msg=name)
    (line,) = [json.loads(x) for x in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines() if '"lr"' in x]
    (other,) = [
        json.loads(x) for x in (tmp_path / "padded" / "train_log.jsonl").read_text().splitlines() if '"lr"' in x
    ]
    assert line["padding_fraction"] < other["padding_fraction"]
    assert line["visual_tokens_per_sample"] == other["visual_tokens_per_sample"]
    for key in ("tokens_per_s", "samples_per_s"):  # the same samples and tokens: the times alone differ
        assert line[key] * line["step_s"] == pytest.approx(other[key] * other["step_s"])


def test_a_packed_run_leaves_a_plain_model(plc_words: list[str], tmp_path: Path) -> None:
    build(plc_words, "pack_length=2048", "max_steps=1").save_model(str(tmp_path / "final"))
    model = Checkpoint.open(tmp_path / "final").model()
    assert model.config.get_text_config()._attn_implementation == "sdpa"


def test_rows_shorter_than_samples_are_refused(plc_words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^train_data: no data .*\npack_length: 100 is below max_length, 2048$"):
        build(plc_words, "pack_length=100", "train_data=[]")


def test_a_row_of_padding_has_gradients_and_they_are_zero() -> None:
    """Processes average gradients in the order in which they come: one without some would average the wrong ones."""
    query, key, value = (torch.randn(1, heads, 3, 4, requires_grad=True) for heads in (4, 2, 2))
    module = torch.nn.Module()
    module.num_key_value_groups = 2
    output, _ = attend_by_sample(module, query, key, value, None, sample_lengths=[[]])
    assert output.shape == (1, 3, 4, 4)
    assert not output.any()
    for gradient in torch.autograd.grad(output.sum(), (query, key, value)):
        assert not gradient.any()
