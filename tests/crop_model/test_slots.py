"""Slots against a slow reference, the pooling, and the tables' initialisation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crop_model.allocation import allocate
from crop_model.compressor import CompressorConfig
from crop_model.hilbert import hilbert_order
from crop_model.slots import membership, pool


def build(compressor_type, grid, budget, region_ratio=16.0, hidden_size=8, num_attention_heads=2):
    return CompressorConfig(compressor_type, hidden_size, grid, budget, region_ratio, num_attention_heads).build()


GRIDS = [(24, 24), (27, 27), (16, 16), (12, 12), (8, 8), (6, 10)]


@st.composite
def region_masks(draw, grid):
    """A rectangle, a rectangle with holes, or nothing and everything."""
    rows, columns = grid
    kind = draw(st.sampled_from(["rectangle", "rectangle", "random", "none", "all"]))
    if kind in ("none", "all"):
        return torch.full((rows * columns,), kind == "all")
    if kind == "random":
        generator = torch.Generator().manual_seed(draw(st.integers(0, 2**30)))
        return torch.rand(rows * columns, generator=generator) < draw(st.floats(0.01, 0.99))
    mask = torch.zeros(rows, columns, dtype=torch.bool)
    y, x = draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))
    mask[y : y + draw(st.integers(1, rows)), x : x + draw(st.integers(1, columns))] = True
    return mask.flatten()


@st.composite
def batches(draw, grids=tuple(GRIDS)):
    grid = draw(st.sampled_from(grids))
    n = grid[0] * grid[1]
    budget = draw(st.one_of(st.integers(2, n), st.sampled_from([2, n // 9, n // 3, n])))
    masks = torch.stack([draw(region_masks(grid)) for _ in range(draw(st.integers(1, 3)))])
    return grid, budget, masks


def slow_slots(mask, grid, budget, ratio):
    """The definition, patch by patch: slot of every patch, its rank there, and the slots' raster order."""
    columns = grid[1]
    if mask.all():
        mask = torch.zeros_like(mask)
    groups = {True: [], False: []}
    for patch in hilbert_order(*grid):
        groups[bool(mask[patch])].append(patch)
    t_in, t_out = allocate(torch.tensor([len(groups[True])]), torch.tensor([len(groups[False])]), budget, ratio)
    slots = []
    for group, t in ((groups[True], t_in.item()), (groups[False], t_out.item())):
        runs = [[] for _ in range(t)]
        for rank, patch in enumerate(group):
            runs[rank * t // len(group)].append(patch)
        slots += runs

    def raster(run):
        row = sum(patch // columns for patch in run) / len(run)
        column = sum(patch % columns for patch in run) / len(run)
        return int(row + 0.5), column

    return sorted(slots, key=raster)


@settings(max_examples=80, deadline=None)
@given(batches(), st.sampled_from([1.5, 4.0, 16.0]))
def test_slots_are_their_definition(batch, ratio):
    grid, budget, masks = batch
    pooling = build("no_queries", grid, budget, ratio)
    slot, rank = pooling.slots(pooling.known_region(masks))
    for mask, slots_found, ranks_found in zip(masks, slot, rank, strict=True):
        for number, run in enumerate(slow_slots(mask, grid, budget, ratio)):
            for place, patch in enumerate(run):
                assert slots_found[patch] == number
                assert ranks_found[patch] == place


@settings(max_examples=150, deadline=None)
@given(batches())
def test_every_patch_in_one_slot_no_slot_empty_none_mixed(batch):
    grid, budget, masks = batch
    slot = build("no_queries", grid, budget, 16.0).assign(masks, torch.zeros(*masks.shape, 1))
    assert slot.min() >= 0 and slot.max() < budget
    member = membership(slot, budget)
    assert (member.sum(dim=1) == 1).all()  # (B, N): one slot a patch
    assert (member.sum(dim=2) >= 1).all()  # (B, T): a patch a slot
    inside = (member & masks[:, None]).sum(dim=2)
    assert ((inside == 0) | (inside == member.sum(dim=2))).all()


@settings(max_examples=50, deadline=None)
@given(batches(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_pool_is_the_mean_and_exact_for_one_patch(batch, dtype):
    grid, budget, masks = batch
    features = torch.randn(*masks.shape, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    slot = build("no_queries", grid, budget, 16.0).assign(masks, features)
    tokens = pool(features, slot, budget)
    assert tokens.dtype == dtype
    for b in range(len(masks)):
        for t in range(budget):
            own = features[b, slot[b] == t]
            if len(own) == 1:
                assert torch.equal(tokens[b, t], own[0])
            else:
                torch.testing.assert_close(tokens[b, t], own.double().mean(dim=0).to(dtype))


def test_nothing_of_other_patches_reaches_a_slot_of_one():
    """Not even by way of a product with zero, nor by a matrix product in reduced precision."""
    features, slot = torch.randn(1, 4, 3), torch.tensor([[0, 1, 2, 2]])
    features[0, 3] = float("inf")
    assert torch.equal(pool(features, slot, 3)[0, :2], features[0, :2])


@settings(max_examples=50, deadline=None)
@given(batches())
def test_equal_patches_pool_to_themselves(batch):
    grid, budget, masks = batch
    value = torch.randn(7, generator=torch.Generator().manual_seed(1))
    pooling = build("no_queries", grid, budget, 16.0)
    for dtype, tolerance in ((torch.bfloat16, 0.0), (torch.float32, 2e-5)):
        features = value.to(dtype).expand(*masks.shape, 7)
        tokens = pooling(features, masks)
        torch.testing.assert_close(tokens, value.to(dtype).expand_as(tokens), rtol=tolerance, atol=tolerance)


@settings(max_examples=30, deadline=None)
@given(batches())
def test_without_a_region_pooling_is_uniform(batch):
    grid, budget, masks = batch
    features = torch.randn(*masks.shape, 3)
    uniform = build("uniform", grid, budget)(features, masks)
    pooling = build("no_queries", grid, budget, 16.0)
    assert torch.equal(pooling(features, torch.zeros_like(masks)), uniform)
    assert torch.equal(pooling(features, torch.ones_like(masks)), uniform)


def test_uniform_pooling_of_24x24_to_64_is_average_pooling():
    features = torch.randn(2, 576, 3)
    tokens = build("uniform", (24, 24), 64)(features, torch.zeros(2, 576, dtype=torch.bool))
    image = features.unflatten(1, (24, 24)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.avg_pool2d(image, 3).flatten(2).transpose(1, 2)
    torch.testing.assert_close(tokens, expected)


def test_a_budget_of_all_patches_changes_nothing():
    features = torch.randn(1, 144, 3)
    mask = torch.rand(1, 144) < 0.3
    assert torch.equal(build("no_queries", (12, 12), 144, 16.0)(features, mask), features)


def test_tables_are_in_no_checkpoint_and_survive_a_start_without_storage():
    with torch.device("meta"):
        pooling = build("no_queries", (12, 12), 16, 4.0)
    assert not pooling.state_dict()
    pooling = pooling.to_empty(device="cpu")
    pooling.curve.fill_(7)
    pooling.reset_parameters()
    mask, features = torch.rand(2, 144) < 0.3, torch.randn(2, 144, 3)
    assert torch.equal(pooling(features, mask), build("no_queries", (12, 12), 16, 4.0)(features, mask))


@pytest.mark.parametrize(
    ("features", "mask"),
    [
        (torch.zeros(2, 143, 3), torch.zeros(2, 143, dtype=torch.bool)),
        (torch.zeros(144, 3), torch.zeros(144, dtype=torch.bool)),
        (torch.zeros(2, 144, 3), torch.zeros(1, 144, dtype=torch.bool)),
        (torch.zeros(2, 144, 3), torch.zeros(2, 144)),
    ],
)
def test_wrong_shapes_are_refused(features, mask):
    with pytest.raises(ValueError, match="features of shape"):
        build("no_queries", (12, 12), 16, 4.0)(features, mask)
