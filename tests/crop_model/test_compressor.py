"""The invariants of the region-ratio compressor, as properties over grids, budgets and masks."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from crop_model.compressor import (
    COMPRESSOR_TYPES,
    COMPRESSORS,
    CompressorConfig,
    SlotAttention,
    register_compressor,
    slot_softmax,
)
from crop_model.compressor_base import Compressor
from crop_model.configuration_crop_llava import CropLlavaConfig
from crop_model.cost.model import ModelShape
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.slots import membership

D, HEADS = 16, 4
LEARNED = ["region_ratio", "no_anchors", "no_residual"]


def build(compressor_type, grid=(12, 12), budget=16, **changes):
    torch.manual_seed(0)
    arguments = {"hidden_size": D, "region_ratio": 16.0, "num_attention_heads": HEADS, **changes}
    return CompressorConfig(compressor_type, patch_grid=grid, token_budget=budget, **arguments).build()


def trained(compressor):
    """As after some training: every parameter is random."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in compressor.parameters():
            parameter.normal_(std=0.3)
    return compressor


@st.composite
def batches(draw):
    grid = draw(st.sampled_from([(24, 24), (27, 27), (16, 16), (12, 12), (8, 8), (6, 10)]))
    n = grid[0] * grid[1]
    budget = draw(st.sampled_from([2, n // 18, n // 9, n // 4, n // 3, n]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**30)))
    masks = torch.zeros(4, *grid, dtype=torch.bool)
    for mask in masks[:3]:  # the fourth knows no region
        y, x = draw(st.integers(0, grid[0] - 1)), draw(st.integers(0, grid[1] - 1))
        mask[y : y + draw(st.integers(1, grid[0])), x : x + draw(st.integers(1, grid[1]))] = True
    if draw(st.booleans()):
        masks[0] = torch.rand(grid, generator=generator) < 0.3
    features = torch.randn(4, n, D, generator=generator)
    return grid, max(budget, 2), features, masks.flatten(1)


@settings(max_examples=40, deadline=None)
@given(batches(), st.sampled_from(list(COMPRESSOR_TYPES)))
def test_exactly_t_tokens_and_a_batch_is_each_sample_alone(batch, compressor_type):
    grid, budget, features, masks = batch
    compressor = trained(build(compressor_type, grid, budget))
    tokens = compressor(features, masks)
    assert compressor.num_tokens == (features.shape[1] if compressor_type == "none" else budget)
    assert tokens.shape == (4, compressor.num_tokens, D)
    assert tokens.isfinite().all()
    alone = [compressor(f, m) for f, m in zip(features.split(1), masks.split(1), strict=True)]
    torch.testing.assert_close(tokens, torch.cat(alone), rtol=1e-4, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(batches(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_at_initialisation_a_fitting_region_comes_out_bit_for_bit(batch, dtype):
    grid, budget, features, masks = batch
    compressor = build("region_ratio", grid, budget).to(dtype)
    features = features.to(dtype)
    tokens, slot = compressor(features, masks), compressor.assign(masks, features)
    own = membership(slot, budget).sum(dim=-1)  # (B, T)
    for b in range(4):
        region = compressor.known_region(masks)[b]
        if (own[b, slot[b, region]] == 1).all():  # it fits
            assert torch.equal(tokens[b, slot[b, region]], features[b, region])


def test_a_region_that_fits_is_the_rule():
    """27 patches fit 64 tokens of 576 (the median box of Visual-CoT has 26): the property above is not empty."""
    compressor, mask = build("region_ratio", (24, 24), 64), torch.zeros(1, 24, 24, dtype=torch.bool)
    mask[:, 3:6, 9:18] = True
    features = torch.randn(1, 576, D)
    kept = features[mask.flatten(1)][:, None] == compressor(features, mask.flatten(1))
    assert kept.all(dim=-1).any(dim=1).all()


@settings(max_examples=20, deadline=None)
@given(batches())
def test_at_initialisation_a_patch_outside_never_changes_an_anchor(batch):
    grid, budget, features, masks = batch
    compressor = build("region_ratio", grid, budget)
    region = compressor.known_region(masks)
    changed = torch.where(region[..., None], features, 1e3 * torch.randn_like(features))
    slot = compressor.assign(masks, features)
    in_region = torch.zeros(4, budget, dtype=torch.bool).scatter(1, slot, region)
    assert torch.equal(compressor(features, masks)[in_region], compressor(changed, masks)[in_region])


@settings(max_examples=20, deadline=None)
@given(batches())
def test_even_trained_a_token_knows_its_own_slot_alone(batch):
    grid, budget, features, masks = batch
    compressor = trained(build("region_ratio", grid, budget))
    slot = compressor.assign(masks, features)
    chosen = slot[:, :1]  # the slot of each image's first patch
    changed = torch.where((slot == chosen)[..., None], features, torch.randn_like(features))
    index = chosen[..., None].expand(-1, -1, D)
    before, after = compressor(features, masks).gather(1, index), compressor(changed, masks).gather(1, index)
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(batches())
def test_without_a_region_it_starts_as_uniform_pooling(batch):
    grid, budget, features, masks = batch
    compressor, uniform = build("region_ratio", grid, budget), build("uniform", grid, budget)
    nothing, everything = torch.zeros_like(masks), torch.ones_like(masks)
    assert torch.equal(compressor(features, nothing), uniform(features, masks))
    assert torch.equal(compressor(features, everything), uniform(features, masks))
    trained(compressor)
    assert torch.equal(compressor(features, nothing), compressor(features, everything))


@pytest.mark.parametrize("compressor_type", ["region_ratio", "uniform", "no_queries", "random", "none"])
def test_a_budget_of_all_patches_is_the_identity_at_initialisation(compressor_type):
    features, mask = torch.randn(2, 144, D), torch.rand(2, 144) < 0.2
    assert torch.equal(build(compressor_type, budget=144)(features, mask), features)


@pytest.mark.parametrize("compressor_type", LEARNED)
def test_gradients_reach_every_parameter_and_the_features(compressor_type):
    compressor = build(compressor_type)
    features, mask = torch.randn(3, 144, D, requires_grad=True), torch.zeros(3, 12, 12, dtype=torch.bool)
    mask[0, 2:9, 3:10] = True  # more than its share: slots of several patches inside
    mask[1, 2:4, 2:4] = True
    optimizer = torch.optim.SGD(compressor.parameters(), lr=1.0)
    target = torch.randn(3, 16, D)
    for _ in range(2):  # W_o starts at zero: it moves in the first step, all the others from the second on
        before = copy.deepcopy(compressor.state_dict())
        optimizer.zero_grad()
        (compressor(features, mask.flatten(1)) - target).square().sum().backward()
        optimizer.step()
    for name, parameter in compressor.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        assert not torch.equal(parameter, before[name]), name
    assert (features.grad.abs().sum(dim=-1) > 0).all()


def test_no_anchors_mixes_every_patch_of_the_region():
    mask = torch.zeros(3, 12, 12, dtype=torch.bool)
    mask[0, 2:5, 2:5], mask[1, :6], mask[2, :2, :1] = True, True, True
    mask = mask.flatten(1)
    compressor = build("no_anchors", budget=16)
    slot = compressor.assign(mask, torch.zeros(3, 144, D))
    size = membership(slot, 16).sum(dim=-1).gather(1, slot)
    assert (size[mask] >= 2).all()


def test_no_residual_is_the_attention_alone():
    features, mask = torch.randn(2, 144, D), torch.rand(2, 144) < 0.3
    with_residual, without = build("region_ratio"), build("no_residual")
    without.load_state_dict(trained(with_residual).state_dict())
    mean = build("no_queries")(features, mask)
    torch.testing.assert_close(without(features, mask) + mean, with_residual(features, mask))
    assert build("no_residual")(features, mask).abs().mean() > 0.1  # starts at a useful scale


def normalised(x):
    return (x - x.mean(dim=-1, keepdim=True)) / (x.var(dim=-1, keepdim=True, unbiased=False) + 1e-5).sqrt()


def slow_attention(attention, features, *, content, position, in_region, slot, rank):
    """One image, slot by slot, with a softmax over the slot's own patches."""
    tokens = []
    for t in range(len(content)):
        own = slot == t
        query = normalised(attention.content_query(content[t])) + attention.place_query(position[t])
        query = query + attention.group_query[int(in_region[t])]
        key = normalised(attention.key(features[own])) + attention.rank_key(rank[own].clamp(max=63))
        heads = []
        for h in range(attention.num_heads):
            size = attention.width // attention.num_heads
            part = slice(h * size, (h + 1) * size)
            weights = (key[:, part] @ query[part] / math.sqrt(size)).softmax(dim=0)
            heads.append(weights @ attention.value(features[own])[:, part])
        tokens.append(attention.output(torch.cat(heads)))
    return torch.stack(tokens)


@settings(max_examples=15, deadline=None)
@given(batches())
def test_slot_attention_is_its_definition(batch):
    grid, budget, features, masks = batch
    compressor = trained(build("region_ratio", grid, budget))
    slot, rank = compressor.slots(compressor.known_region(masks))
    content, position = torch.randn(4, budget, D), torch.randn(4, budget, 3)
    in_region = torch.rand(4, budget) < 0.5
    arguments = {"content": content, "position": position, "in_region": in_region, "slot": slot, "rank": rank}
    found = compressor.attention(features, **arguments)
    expected = [
        slow_attention(compressor.attention, features[b], **{name: value[b] for name, value in arguments.items()})
        for b in range(4)
    ]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-3, atol=1e-3)


def test_region_and_rest_have_a_learned_query_each():
    compressor, features = trained(build("region_ratio")), torch.randn(1, 144, D)
    mask = torch.zeros(1, 12, 12, dtype=torch.bool)
    mask[:, 1:10, 2:11] = True  # several patches a slot inside
    mask = mask.flatten(1)
    slot = compressor.assign(mask, features)
    inside = torch.zeros(1, 16, dtype=torch.bool).scatter(1, slot, mask)
    before = compressor(features, mask)
    with torch.no_grad():
        compressor.attention.group_query[1] += 1.0
    changed = (compressor(features, mask) - before).abs().amax(dim=-1) > 1e-4
    assert torch.equal(changed, inside)


def test_softmax_of_scores_far_apart_is_finite():
    slot = torch.tensor([[0, 0, 1, 1, 1]])
    scores = torch.tensor([[1e4, -1e4, -3e4, -3e4, -3e4]])[..., None].requires_grad_()
    weights = slot_softmax(scores, slot, membership(slot, 2))
    torch.testing.assert_close(weights[0, :, 0], torch.tensor([1, 0, 1 / 3, 1 / 3, 1 / 3]))
    weights.sum().backward()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("compressor_type", COMPRESSOR_TYPES)
def test_compiled_as_one_graph_it_agrees(compressor_type):
    torch.compiler.reset()
    compressor = trained(build(compressor_type))
    compiled = torch.compile(compressor, fullgraph=True, backend="aot_eager")
    for seed in (0, 1):
        torch.manual_seed(seed)
        mask = torch.zeros(3, 12, 12, dtype=torch.bool)
        mask[0, 2:8, 3 : 5 + seed], mask[1, 1:3, 1:3] = True, True
        features = torch.randn(3, 144, D, requires_grad=True)
        torch.testing.assert_close(compiled(features, mask.flatten(1)), compressor(features, mask.flatten(1)))
        compiled(features, mask.flatten(1)).sum().backward()


@pytest.mark.parametrize("compressor_type", LEARNED)
def test_bfloat16_and_autocast_stay_near_float32(compressor_type):
    compressor, mask = trained(build(compressor_type)), torch.rand(2, 144) < 0.2
    features = torch.randn(2, 144, D).bfloat16()
    exact = compressor(features.float(), mask)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = compressor(features.float(), mask)
    low = copy.deepcopy(compressor).bfloat16()(features, mask)
    assert mixed.dtype == torch.float32 and low.dtype == torch.bfloat16
    scale = exact.abs().mean()
    assert (mixed - exact).abs().mean() < 0.02 * scale
    assert (low - exact).abs().mean() < 0.02 * scale


def test_gradient_checkpointing_gives_the_same_gradients():
    compressor, mask = trained(build("region_ratio")), torch.rand(2, 144) < 0.2
    features = torch.randn(2, 144, D)
    gradients = []
    for run in (compressor, lambda f, m: checkpoint(compressor, f, m, use_reentrant=False)):
        compressor.zero_grad()
        run(features, mask).square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in compressor.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert torch.equal(plain, checkpointed)


def test_reset_gives_a_model_without_storage_its_start():
    with torch.device("meta"):
        compressor = build("region_ratio")
    compressor = compressor.to_empty(device="cpu")
    for tensor in (*compressor.parameters(), *compressor.buffers()):
        tensor.data.fill_(3)
    compressor.reset_parameters()
    features, mask = torch.randn(2, 144, D), torch.rand(2, 144) < 0.3
    assert torch.equal(compressor(features, mask), build("region_ratio")(features, mask))
    assert 0.5 < compressor.attention.value.weight.std() * math.sqrt(D) < 1.5
    assert all(name.startswith("attention.") for name in compressor.state_dict())


def test_heads_stay_narrow_where_the_tower_is_wide():
    assert SlotAttention(1024, 8, zero_output=True).width == 8 * 32
    assert SlotAttention(64, 8, zero_output=True).width == 64


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"compressor_type": "plc"}, "compressor_type"),
        ({"token_budget": 145}, "token_budget"),
        ({"token_budget": 1}, "token_budget"),
        ({"region_ratio": 1.0}, "region_ratio"),
        ({"region_ratio": float("nan")}, "region_ratio"),
        ({"num_attention_heads": 3}, "compressor_num_attention_heads"),
        ({"num_attention_heads": 0}, "compressor_num_attention_heads"),
    ],
)
def test_a_value_that_does_not_fit_is_named_in_one_line(changes, key):
    arguments = {
        "compressor_type": "region_ratio",
        "hidden_size": D,
        "patch_grid": (12, 12),
        "token_budget": 16,
        "region_ratio": 16.0,
        "num_attention_heads": HEADS,
    }
    with pytest.raises(ValueError, match=f"^{key}: ") as error:
        CompressorConfig(**{**arguments, **changes})
    assert "\n" not in str(error.value)


def test_no_compression_needs_no_budget():
    assert build("none", budget=0).num_tokens == 144


@pytest.mark.parametrize("compressor_type", COMPRESSOR_TYPES)
def test_a_type_reads_the_region_if_and_only_if_it_says_so(compressor_type):
    compressor, features = trained(build(compressor_type)), torch.randn(2, 144, D)
    mask = torch.zeros(2, 12, 12, dtype=torch.bool)
    mask[:, 1:5, 2:6] = True
    same = torch.equal(compressor(features, mask.flatten(1)), compressor(features, ~mask.flatten(1)))
    assert same != COMPRESSORS[compressor_type].reads_region


class EveryNth(Compressor):
    """Every n-th patch, in raster order: a type of somebody else's file."""

    name = "every_nth"
    reads_region = False

    @classmethod
    def macs(cls, config):
        return 0

    def compress(self, features, region_mask):
        return features[:, :: features.shape[1] // self.num_tokens][:, : self.num_tokens]

    def assign(self, region_mask, features):
        step = features.shape[1] // self.num_tokens
        patch = torch.arange(features.shape[1])
        return torch.where(patch % step == 0, patch // step, -1).expand(len(features), -1)


@pytest.fixture
def every_nth():
    yield register_compressor(EveryNth)
    del COMPRESSORS[EveryNth.name]


def test_a_type_of_another_file_is_known_once_registered(every_nth, tiny_llava):
    config = CropLlavaConfig.from_pretrained(tiny_llava, compressor_type="every_nth", token_budget=16)
    model = CropLlavaForConditionalGeneration.from_pretrained(tiny_llava, config=config)
    assert isinstance(model.model.compressor, EveryNth) and "every_nth" in COMPRESSOR_TYPES
    assert ModelShape.from_config(config).prefill(1).compressor == 0
    assert not config.compressor_config.travels
    assert all(CompressorConfig(name, D, (12, 12), 16).travels for name in COMPRESSORS if name != "every_nth")


def test_a_name_is_of_one_class():
    with pytest.raises(ValueError, match="compressor_type: 'none' is taken by crop_model"):
        register_compressor(type("Other", (Compressor,), {"name": "none"}))
