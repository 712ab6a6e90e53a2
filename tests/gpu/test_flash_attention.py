"""FlashAttention's kernels on a GPU: pruning, padding, caches and packed rows, against fp32 and beside bf16 `sdpa`.

    ./launch/test.sh tests/gpu

on a machine with flash-attn and a GPU that it runs on; skipped elsewhere. The demo's trained model answers, whose heads
are of a size that the kernels know.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.utils import is_flash_attn_2_available

from crop_model.training_free.inside_llm import PruningConfig, prune
from data_prep.demo import DemoArguments, write_demo
from data_prep.schema.data_source import DataSource
from train.backbones.checkpoint import Checkpoint
from train.data.collator import Collator
from train.data.samples import load_samples

pytestmark = pytest.mark.skipif(not is_flash_attn_2_available(), reason="needs flash-attn and a GPU that it runs on")

BASE = Path(__file__).parents[2] / "configs" / "demo_base"
FLASH = "flash_attention_2"
WAYS = {"reference": (torch.float32, "sdpa"), "sdpa": (torch.bfloat16, "sdpa"), FLASH: (torch.bfloat16, FLASH)}
COMPRESSORS = {
    "none": {"compressor_type": "none", "token_budget": 256},
    "plc": {"compressor_type": "region_ratio", "token_budget": 64},
}
PRUNINGS = {"unpruned": None, **{rest: PruningConfig(1, 20, rest) for rest in ("thinned", "pooled", "attention")}}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> DataSource:
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, DemoArguments(train_images=8, test_images=1))
    parts = {"annotations": "train.json", "image_root": "images", "regions": "regions/train"}
    return DataSource(**{key: str(folder / place) for key, place in parts.items()})


def models(kind: str) -> tuple[dict[str, Any], Any]:
    """The same weights in three ways, and their processor."""
    built = {}
    for name, (dtype, attention) in WAYS.items():
        checkpoint = Checkpoint.open(BASE, **COMPRESSORS[kind])
        model, processor = checkpoint.model(dtype), checkpoint.processor()
        model.set_attn_implementation(attention)
        built[name] = model.cuda()
    return built, processor


def error(computed: torch.Tensor, reference: torch.Tensor) -> float:
    """Relative, in the Frobenius norm."""
    return float((computed.float() - reference.float()).norm() / reference.float().norm())


@pytest.mark.parametrize("kind", COMPRESSORS)
@pytest.mark.parametrize("rest", PRUNINGS)
@torch.inference_mode()
def test_prompts_and_what_follows_them(kind: str, rest: str, source: DataSource) -> None:
    """Logits of a batch padded on the left, and of a second turn through its cache; without the mask they are wrong."""
    built, processor = models(kind)
    batch = prompts(load_samples([source], processor, max_length=512), processor)
    turn = batch["input_ids"][:, -3:]
    whole = torch.cat([batch["attention_mask"], torch.ones_like(turn)], dim=1)

    def logits(name: str, **changed: Any) -> torch.Tensor:
        model = built[name]
        inputs = batch | changed
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        pruning = PRUNINGS[rest]
        with nullcontext() if pruning is None else prune(model, pruning):
            return two_turns(model, inputs, turn, whole)

    reference = logits("reference")
    errors = {name: error(logits(name), reference) for name in ("sdpa", FLASH)}
    assert errors[FLASH] < max(2 * errors["sdpa"], 0.02), errors
    blind = error(logits(FLASH, attention_mask=torch.ones_like(batch["attention_mask"])), reference)
    assert blind > 3 * errors[FLASH], (blind, errors)


def prompts(samples: Any, processor: Any) -> dict[str, torch.Tensor]:
    """Four samples up to their answers, padded on the left, on the GPU; the second one's image has no region."""
    chosen = list(samples.select(range(0, 20, 5)))
    collated = Collator(processor)(chosen)
    lengths = (collated["labels"] != -100).int().argmax(dim=1)  # (B,): where the answer begins
    longest = int(lengths.max()) + 4
    ids = torch.full((len(chosen), longest), processor.tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths.tolist()):
        shorter = length - 2 * row  # of different lengths, whatever the questions
        ids[row, longest - shorter :] = collated["input_ids"][row, :shorter]
        mask[row, longest - shorter :] = 1
    regions = collated["region_mask"].clone()
    regions[1] = False
    batch = {"input_ids": ids, "attention_mask": mask, "pixel_values": collated["pixel_values"], "region_mask": regions}
    return {name: value.cuda() for name, value in batch.items()}


def two_turns(model: Any, inputs: dict[str, Any], turn: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """(B, 1 + turn's length, words)."""
    first = model(**inputs, use_cache=True, logits_to_keep=1)
    second = model(input_ids=turn, attention_mask=whole, past_key_values=first.past_key_values)
    return torch.cat([first.logits, second.logits], dim=1)


def test_packed_rows(source: DataSource) -> None:
    """Loss and gradients of samples in one row are those of the samples alone; without their positions they are not."""
    built, processor = models("plc")
    samples = list(load_samples([source], processor, max_length=512).select(range(6)))
    collator = Collator(processor)

    def step(name: str, items: list[Any], drop: str = "") -> tuple[float, torch.Tensor]:
        model = built[name].train()
        batch = collator(items)
        for key in ("sample_ids", "sample_sizes", drop):
            batch.pop(key, None)
        batch = {key: value.cuda() if isinstance(value, torch.Tensor) else value for key, value in batch.items()}
        batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
        model.zero_grad()
        loss = model(**batch, num_items_in_batch=(batch["labels"] != -100).sum()).loss
        loss.backward()
        return loss.item(), torch.cat([p.grad.float().flatten() for p in model.parameters() if p.grad is not None])

    loss, gradients = step("reference", samples)
    alone = error(step("sdpa", samples)[1], gradients)
    packed_loss, packed_gradients = step(FLASH, [samples])
    assert packed_loss == pytest.approx(loss, rel=0.02)
    packed = error(packed_gradients, gradients)
    assert packed < max(2 * alone, 0.05)
    assert error(step(FLASH, [samples], drop="position_ids")[1], gradients) > 3 * packed
