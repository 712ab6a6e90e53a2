"""DivPrune and VisionZip against slow versions in plain Python, and inside the model."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.processing_crop_llava import CropLlavaProcessor
from crop_model.training_free.divprune import DivPrune, max_min_diverse
from crop_model.training_free.methods import METHODS, training_free_method
from crop_model.training_free.visionzip import VisionZip, visionzip
from train.evaluation.vision_reuse import each_image_once

BUDGET = 12


@st.composite
def tokens(draw):
    """(2, N, 6) tokens, some of them near copies, and a number of tokens to keep."""
    count = draw(st.integers(2, 24))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    centres = torch.randn(2, count, 6, generator=generator)
    copies = centres[:, torch.randint(0, count, (count,), generator=generator)]
    noise = 0.1 * torch.randn(2, count, 6, generator=generator)
    return copies + noise, draw(st.integers(2, count))


def slow_max_min(vectors: torch.Tensor, count: int) -> list[list[int]]:
    """The choices of `count` tokens; more than one where the first is a tie of two that are each other's nearest."""
    vectors = vectors.double()
    distance = [[1 - float(torch.cosine_similarity(a, b, dim=0)) for b in vectors] for a in vectors]
    every = range(len(vectors))
    nearest = [min(distance[i][j] for j in every if j != i) for i in every]
    choices = []
    for first in (i for i in every if nearest[i] > max(nearest) - 1e-6):
        chosen = [first]
        while len(chosen) < count:
            left = [i for i in every if i not in chosen]
            chosen.append(max(left, key=lambda i: min(distance[i][j] for j in chosen)))
        choices.append(sorted(chosen))
    return choices


@settings(deadline=None, max_examples=30)
@given(tokens())
def test_max_min_diversity_equals_the_slow_version(case):
    vectors, count = case
    for image, chosen in enumerate(max_min_diverse(vectors, count).tolist()):
        assert chosen in slow_max_min(vectors[image], count)


def test_diversity_skips_copies():
    vectors = torch.eye(4).repeat_interleave(5, dim=0)[None] + 1e-3 * torch.randn(1, 20, 4)
    assert (max_min_diverse(vectors, 4) // 5).tolist() == [[0, 1, 2, 3]]


def slow_visionzip(hidden: torch.Tensor, attention: torch.Tensor, keys: torch.Tensor, count: int) -> torch.Tensor:
    """One image: CLS and patches (1 + N, D), (N,), (N, head size)."""
    dominant_count = count * 27 // 32
    ranked = sorted(range(len(attention)), key=lambda i: -float(attention[i]))
    dominant = sorted(ranked[: dominant_count - 1])
    others = [i for i in range(len(attention)) if i not in dominant]
    contextual_count = count - dominant_count
    targets = others[:: max(1, len(others) // contextual_count)][:contextual_count]
    guests: dict[int, list[int]] = {target: [] for target in targets}
    for patch in others:
        if patch not in guests:
            guests[max(targets, key=lambda t: float(torch.cosine_similarity(keys[patch], keys[t], dim=0)))].append(
                patch
            )
    merged = []
    for target in targets:
        token = hidden[1 + target]
        merged.append(token + hidden[[1 + guest for guest in guests[target]]].mean(dim=0) if guests[target] else token)
    return torch.stack([hidden[0], *(hidden[1 + patch] for patch in dominant), *merged])


@pytest.mark.parametrize("count", [2, 3, 9, 16, 40, 64])
def test_visionzip_equals_the_slow_version(count):
    generator = torch.Generator().manual_seed(count)
    hidden, attention = torch.randn(3, 65, 8, generator=generator), torch.rand(3, 64, generator=generator)
    keys = torch.randn(3, 64, 4, generator=generator)
    ours = visionzip(hidden, attention, keys, count)
    assert ours.shape == (3, count, 8)
    for image in range(3):
        expected = slow_visionzip(hidden[image], attention[image], keys[image], count)
        torch.testing.assert_close(ours[image], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count, dominant", [(64, 54), (128, 108), (192, 162)])
def test_visionzip_splits_the_papers_budgets(count, dominant):
    hidden = torch.randn(1, 577, 2)
    hidden[:, 1:, 0] = torch.arange(576)
    tokens = visionzip(hidden, torch.arange(576.0)[None], torch.randn(1, 576, 4), count)
    assert torch.equal(tokens[0, 1:dominant, 0], torch.arange(577.0 - dominant, 576)), "the last ones matter most"
    assert torch.equal(tokens[:, 0], hidden[:, 0])


@pytest.fixture(scope="module")
def model(tiny_llava: Path) -> CropLlavaForConditionalGeneration:
    return CropLlavaForConditionalGeneration.from_pretrained(
        tiny_llava, compressor_type="random", token_budget=BUDGET
    ).eval()


@pytest.fixture(scope="module")
def inputs(tiny_llava: Path):
    processor = CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=BUDGET)
    images = [torch.randint(0, 256, (3, 40, 30), dtype=torch.uint8) for _ in range(3)]
    texts = ["USER: <image>\nwhat is <image> this ASSISTANT:", "USER: <image>\nwhat ASSISTANT:"]
    return processor(images=images, text=texts, regions=[None] * 3, padding=True, return_tensors="pt")


@torch.no_grad()
def test_the_model_reads_visionzips_tokens(model, inputs):
    """Against the attention weights and keys of the tower itself."""
    seen = []
    attention = model.model.vision_tower.encoder.layers[-2].self_attn
    model.model.vision_tower.set_attn_implementation("eager")
    with attention.k_proj.register_forward_hook(lambda module, args, output: seen.append(output)):
        tower = model.model.vision_tower(inputs["pixel_values"], output_attentions=True, output_hidden_states=True)
    model.model.vision_tower.set_attn_implementation("sdpa")
    weights, hidden = tower.attentions[-2].sum(dim=1)[:, 0, 1:], tower.hidden_states[-2]
    keys = seen[0].unflatten(-1, (attention.num_heads, -1)).mean(dim=2)[:, 1:]
    with VisionZip().applied(model):
        ours = model.model.get_image_features(inputs["pixel_values"]).pooler_output
    for image in range(3):
        slow = slow_visionzip(hidden[image], weights[image], keys[image], BUDGET)
        expected = model.model.multi_modal_projector(slow)
        torch.testing.assert_close(ours[image], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_model_reads_divprunes_tokens(model, inputs):
    tower = model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True)
    projected = model.model.multi_modal_projector(tower.hidden_states[-2][:, 1:])
    with DivPrune().applied(model):
        ours = model.model.get_image_features(inputs["pixel_values"]).pooler_output
    for image in range(3):
        choices = [projected[image, chosen] for chosen in slow_max_min(projected[image], BUDGET)]
        assert any(torch.allclose(ours[image], expected, atol=1e-5) for expected in choices)


@pytest.mark.parametrize("method", ["divprune", "visionzip"])
def test_generate_uses_them_and_leaves_no_trace(model, inputs, method):
    arguments = {**inputs, "max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    arguments |= {"output_logits": True, "return_dict_in_generate": True}
    before = model.generate(**arguments).logits[0]
    with METHODS[method]().applied(model):
        generated = model.generate(**arguments)
        with torch.no_grad():
            logits = model(**inputs).logits[:, -1]
    torch.testing.assert_close(generated.logits[0], logits, atol=1e-5, rtol=1e-5)
    assert (logits - before).abs().max() > 1e-3
    assert torch.equal(model.generate(**arguments).logits[0], before)


@pytest.mark.parametrize("method", ["divprune", "visionzip"])
@torch.no_grad()
def test_images_that_evaluation_encodes_once(model, inputs, method):
    pixels = inputs["pixel_values"][[0, 0, 1]]
    with METHODS[method]().applied(model):
        expected = model.model.get_image_features(pixels).pooler_output
        with each_image_once(model.model.vision_tower):
            ours = model.model.get_image_features(pixels).pooler_output
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_wrong_calls(tiny_llava: Path):
    other = CropLlavaForConditionalGeneration.from_pretrained(
        tiny_llava, compressor_type="uniform", token_budget=BUDGET
    )
    with pytest.raises(ValueError, match="compressor_type"), DivPrune().applied(other):
        pass
    with pytest.raises(ValueError, match="method"):
        training_free_method("magic")
