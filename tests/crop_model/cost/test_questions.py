"""Costs of many questions about one image, against torch's own counter on a real model."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from crop_model.cost.model import ModelShape
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.training_free.inside_llm import PruningConfig
from tests.benchmarks.cost_of_questions import macs_of_questions
from tests.crop_model.cost.test_model import TEXT_TOKENS, tiny_config
from train.evaluation.vision_reuse import each_image_once

QUESTIONS = 3


def build(compressor_type):
    config = tiny_config(compressor_type)
    config._attn_implementation = "eager"  # torch does not count its fused attention on CPUs
    return CropLlavaForConditionalGeneration(config).eval(), ModelShape.from_config(config)


@pytest.mark.parametrize("compressor_type", ["none", "region_ratio"])
def test_a_tower_kept_is_what_torch_counts(compressor_type):
    model, shape = build(compressor_type)
    input_ids = torch.tensor([[99] * shape.tokens(0) + [5] * TEXT_TOKENS]).repeat(QUESTIONS, 1)
    images = {"pixel_values": torch.randn(1, 3, 48, 48).repeat(QUESTIONS, 1, 1, 1)}
    images["region_mask"] = torch.rand(QUESTIONS, 144) < 0.2
    with FlopCounterMode(display=False) as counter, torch.no_grad(), each_image_once(model.model.vision_tower):
        model(input_ids=input_ids, **images, logits_to_keep=1)
    assert counter.get_total_flops() // 2 == macs_of_questions(shape, TEXT_TOKENS, QUESTIONS, "tower")


@pytest.mark.parametrize("compressor_type", ["none", "uniform"])
def test_a_cache_kept_is_what_torch_counts(compressor_type):
    model, shape = build(compressor_type)
    image = torch.full((1, shape.tokens(0)), 99)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        cache = model(input_ids=image, pixel_values=torch.randn(1, 3, 48, 48), use_cache=True).past_key_values
        for _ in range(QUESTIONS):
            model(input_ids=torch.full((1, TEXT_TOKENS), 5), past_key_values=cache, logits_to_keep=1)
            cache.crop(-TEXT_TOKENS)
    unused = shape.language_model.head_macs(shape.tokens(0))  # logits of the image alone
    assert counter.get_total_flops() // 2 - unused == macs_of_questions(shape, TEXT_TOKENS, QUESTIONS, "cache")


@pytest.mark.parametrize("kept", ["nothing", "tower"])
def test_one_question_costs_a_prefill(kept):
    _, shape = build("none")
    pruning = PruningConfig(1, 5)
    assert macs_of_questions(shape, 7, 1, kept, pruning) == shape.prefill(7, pruning=pruning).total
    nothing_kept = macs_of_questions(shape, 7, QUESTIONS, "nothing")
    assert nothing_kept == QUESTIONS * shape.prefill(7).total > macs_of_questions(shape, 7, QUESTIONS, "tower")


def test_tokens_that_follow_the_question_keep_no_cache():
    for shape, pruning in ((build("region_ratio")[1], None), (build("none")[1], PruningConfig(1, 5))):
        with pytest.raises(ValueError, match="follow the question"):
            macs_of_questions(shape, 7, QUESTIONS, "cache", pruning)
