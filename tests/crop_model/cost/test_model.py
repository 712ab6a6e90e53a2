"""Costs by formula against torch's own counter on a real model, and against published figures."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, LlamaConfig, LlamaForCausalLM

from crop_model.compressor import COMPRESSOR_TYPES
from crop_model.configuration_crop_llava import CropLlavaConfig
from crop_model.cost.model import ModelShape
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.training_free.inside_llm import PruningConfig, prune
from crop_model.training_free.methods import METHODS
from tests.benchmarks.llava_sizes import llava_config

TEXT_TOKENS = 11


def tiny_config(compressor_type="none", budget=16, key_value_heads=2):
    return CropLlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=48,
            intermediate_size=80,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=48,
            patch_size=4,
        ),
        text_config=LlamaConfig(
            hidden_size=64,
            intermediate_size=112,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=key_value_heads,
            vocab_size=100,
        ),
        image_token_id=99,
        compressor_type=compressor_type,
        token_budget=budget,
        compressor_num_attention_heads=4,
    )


def llava_7b(compressor_type="none", budget=576):
    return ModelShape.from_config(llava_config("7b", compressor_type, budget))


def counted(model, shape, images, **kwargs):
    """MACs of a forward pass, as torch counts them operation by operation."""
    n = shape.tokens(TEXT_TOKENS, images)
    input_ids = torch.full((1, n), 5)
    input_ids[:, : n - TEXT_TOKENS] = 99
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            pixel_values=torch.randn(images, 3, 48, 48),
            region_mask=torch.rand(images, 144) < 0.2,
            **kwargs,
        )
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("compressor_type", COMPRESSOR_TYPES)
def test_prefill_is_what_torch_counts(compressor_type):
    config = tiny_config(compressor_type)
    config._attn_implementation = "eager"  # torch does not count its fused attention on CPUs
    model = CropLlavaForConditionalGeneration(config).eval()
    shape = ModelShape.from_config(config)
    assert counted(model, shape, images=2, logits_to_keep=1) == shape.prefill(TEXT_TOKENS, images=2).total
    every_logit = shape.prefill(TEXT_TOKENS).total + shape.language_model.head_macs(shape.tokens(TEXT_TOKENS) - 1)
    assert counted(model, shape, images=1) == every_logit


@pytest.mark.parametrize("rest", ["thinned", "pooled", "attention"])
@pytest.mark.parametrize("compressor_type", ["none", "region_ratio"])
def test_pruned_prefill_is_what_torch_counts(compressor_type, rest):
    config = tiny_config(compressor_type)
    config._attn_implementation = "eager"
    model = CropLlavaForConditionalGeneration(config).eval()
    shape, pruning = ModelShape.from_config(config), PruningConfig(1, 5, rest)
    with prune(model, pruning):
        assert counted(model, shape, images=2, logits_to_keep=1) == shape.prefill(TEXT_TOKENS, 2, pruning).total


@pytest.mark.parametrize("method", ["divprune", "visionzip"])
def test_training_free_baselines_are_what_torch_counts(method):
    config = tiny_config("random")
    config._attn_implementation = "eager"
    model = CropLlavaForConditionalGeneration(config).eval()
    shape = ModelShape.from_config(config)
    method = METHODS[method]()
    with method.applied(model):
        expected = shape.prefill(TEXT_TOKENS, images=2).total + 2 * method.macs(shape)
        assert counted(model, shape, images=2, logits_to_keep=1) == expected


@pytest.mark.parametrize("budget", [1, 5, 16])
def test_kv_bytes_are_what_the_cache_holds(budget):
    config = tiny_config("region_ratio")
    model = CropLlavaForConditionalGeneration(config).eval()
    shape, pruning = ModelShape.from_config(config), PruningConfig(1, budget)
    input_ids = torch.tensor([[99] * 32 + [5] * TEXT_TOKENS] * 3)
    inputs = {"pixel_values": torch.randn(6, 3, 48, 48), "region_mask": torch.rand(6, 144) < 0.2}
    with torch.no_grad(), prune(model, pruning):
        cache = model(input_ids=input_ids, **inputs, use_cache=True).past_key_values
    held = sum(states.nbytes for layer in cache.layers for states in (layer.keys, layer.values))
    assert held == 3 * shape.kv_bytes(TEXT_TOKENS, images=2, bytes_per_value=4, pruning=pruning)


def test_grouped_keys_make_the_linear_part_and_the_cache_smaller():
    grouped, plain = (ModelShape.from_config(tiny_config(key_value_heads=heads)) for heads in (1, 4))
    assert plain.kv_bytes(10) == 4 * grouped.kv_bytes(10) == 2 * 154 * 2 * 64 * 2
    assert plain.language_model.linear_macs(1) - grouped.language_model.linear_macs(1) == 2 * 2 * 64 * 48


def test_training_step_is_what_torch_counts():
    """The language model alone, from embeddings that need a gradient (projector and compressor train)."""
    config = tiny_config()
    shape = ModelShape.from_config(config)
    config.text_config._attn_implementation = "eager"
    model = LlamaForCausalLM(config.text_config).train()
    model.requires_grad_(False)  # frozen; LoRA's own matrices are left out of the formula
    embeddings = torch.randn(1, shape.tokens(TEXT_TOKENS), 64, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        model(inputs_embeds=embeddings, use_cache=False).logits.sum().backward()
    step = shape.training_step(TEXT_TOKENS)
    expected = step.language_linear + step.language_attention + step.head
    assert counter.get_total_flops() // 2 == expected


def test_published_figures_of_7b():
    full, compressed = llava_7b(), llava_7b("region_ratio", 64)
    language = full.language_model
    assert (language.linear_macs(576) + language.attention_macs(576)) / 1e12 == pytest.approx(3.82, abs=0.005)
    assert full.kv_bytes(0) / 1e6 == pytest.approx(302, abs=0.5)
    assert compressed.kv_bytes(0) / 1e6 == pytest.approx(34, abs=0.5)
    assert 2 * full.vision_tower.macs() / 1e12 == pytest.approx(0.37, rel=0.04)  # 23 of the 24 layers: 0.366
    prefill = full.prefill(0)
    assert prefill.flops == 2 * prefill.total


@pytest.mark.parametrize(
    ("text_tokens", "budget", "limit"), [(150, 64, 3.30), (150, 128, 2.57), (150, 192, 2.1), (400, 64, 2.10)]
)
def test_limits_of_training_speed(text_tokens, budget, limit):
    full, plc = (shape.training_step(text_tokens).total for shape in (llava_7b(), llava_7b("region_ratio", budget)))
    assert full / plc == pytest.approx(limit, rel=0.02)


@pytest.mark.parametrize(
    "budget, mean, pruned, compressed, megabytes",
    [(192, 216, 1.93, 2.07, 113), (128, 156, 2.28, 2.50, 82), (64, 96, 2.78, 3.17, 50)],
)
def test_the_table_of_pruning(budget, mean, pruned, compressed, megabytes):
    """The figures of docs/method.md."""
    full, pruning = llava_7b(), PruningConfig(layer=2, token_budget=budget)
    assert pruning.mean_tokens(576, 32) == mean
    macs, plc = full.prefill(150).total, llava_7b("region_ratio", budget)
    assert macs / full.prefill(150, pruning=pruning).total == pytest.approx(pruned, abs=0.005)
    assert macs / plc.prefill(150).total == pytest.approx(compressed, abs=0.005)
    assert full.kv_bytes(0, pruning=pruning) / 1e6 == pytest.approx(megabytes, abs=0.5)


def test_the_compressor_costs_next_to_nothing():
    compressed = llava_7b("region_ratio", 64)
    prefill, full = compressed.prefill(0), llava_7b().prefill(0)
    assert prefill.compressor < 0.005 * prefill.total
    assert prefill.compressor + prefill.projector < 0.2 * full.projector
