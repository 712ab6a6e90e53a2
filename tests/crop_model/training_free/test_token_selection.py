"""Which visual tokens stay: properties for any region, order and budget."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from crop_model.compressor import COMPRESSOR_TYPES
from crop_model.training_free.token_selection import keep_evenly, keep_highest, regions_and_ranks
from tests.crop_model.test_slots import build


@st.composite
def cases(draw):
    """Regions of three images, numbers that order or score their tokens, and a budget."""
    tokens = draw(st.integers(1, 40))
    density = draw(st.sampled_from([0.0, 0.05, 0.3, 0.9, 1.0]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    region = torch.rand(3, tokens, generator=generator) < density
    return region, torch.rand(3, tokens, generator=generator), draw(st.integers(1, tokens))


@given(cases())
def test_the_budget_is_met_and_the_region_comes_first(case):
    region, number, budget = case
    for kept in (keep_evenly(number, region, budget)[0], keep_highest(number, region, budget)):
        assert (kept.sum(dim=1) == budget).all()
        assert torch.equal((kept & region).sum(dim=1), region.sum(dim=1).clamp(max=budget))


@given(cases())
def test_every_run_keeps_one_token_of_its_own_group(case):
    region, place, budget = case
    kept, run = keep_evenly(place, region, budget)
    for row in range(len(region)):
        sizes: dict[bool, list[int]] = {True: [], False: []}
        for number in range(budget):
            members = run[row] == number
            assert (kept[row] & members).sum() == 1
            assert region[row, members].unique().numel() == 1, "a run mixes the region with the rest"
            inside = bool(region[row, members][0])
            sizes[inside].append(int(members.sum()))
            between = (place[row] >= place[row, members].min()) & (place[row] <= place[row, members].max())
            assert torch.equal(between & (region[row] == inside), members), "a run has a gap on the curve"
        assert all(max(group) - min(group) <= 1 for group in sizes.values() if group)
        assert not (run[row] == budget)[region[row]].any()


@given(cases())
def test_no_token_left_out_scores_higher_than_one_kept(case):
    region, score, budget = case
    kept = keep_highest(score, region, budget)
    for row in range(len(region)):
        for group in (region[row], ~region[row]):
            inside, outside = score[row, group & kept[row]], score[row, group & ~kept[row]]
            assert not inside.numel() or not outside.numel() or inside.min() >= outside.max()


def test_region_and_place_of_every_compressors_tokens():
    features = torch.randn(2, 36, 8)
    region = torch.zeros(2, 6, 6, dtype=torch.bool)
    region[0, 1:3, 1:4] = True
    region = region.flatten(1)
    for compressor_type in COMPRESSOR_TYPES:
        compressor = build(compressor_type, (6, 6), 9, region_ratio=8.0)
        token = compressor.assign(region, features)
        inside, place = regions_and_ranks(compressor, features, region)
        for image in range(2):
            for number in range(compressor.num_tokens):
                patches = [patch for patch in range(36) if token[image, patch] == number]
                assert inside[image, number] == any(region[image, patch] for patch in patches)
                assert place[image, number] == min((compressor.rank_on_curve[patch] for patch in patches), default=36)


def test_a_dropped_patch_belongs_to_no_token():
    compressor = build("random", (6, 6), 9)
    features = torch.randn(1, 36, 8)
    kept = compressor.assign(torch.ones(1, 36).bool(), features) >= 0
    inside, _ = regions_and_ranks(compressor, features, ~kept)
    assert kept.sum() == 9
    assert not inside.any()
