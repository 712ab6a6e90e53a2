"""The baselines that keep patches as they are."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crop_model.test_slots import build

GRID = (12, 12)
N = 144


def features_and_masks(seed, batch=4):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, N, 6, generator=generator), torch.rand(batch, N, generator=generator) < 0.2


def kept_patches(tokens, features):
    """The patch that each token is: patches are all different here."""
    same = (tokens[:, :, None] == features[:, None]).all(dim=-1)  # (B, T, N)
    assert (same.sum(dim=-1) == 1).all()
    return same.long().argmax(dim=-1)


def test_keep_all():
    features, masks = features_and_masks(0)
    compressor = build("none", GRID, 0)
    assert compressor.num_tokens == N
    assert torch.equal(compressor(features, masks), features)
    assert torch.equal(compressor.assign(masks, features), torch.arange(N).expand(4, -1))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(2, N))
def test_random_keeps_different_patches_in_raster_order(seed, budget):
    features, masks = features_and_masks(seed)
    compressor = build("random", GRID, budget)
    kept = kept_patches(compressor(features, masks), features)
    assert (kept.diff(dim=1) > 0).all()
    assigned = compressor.assign(masks, features)
    assert torch.equal(assigned.gather(1, kept), torch.arange(budget).expand(4, -1))
    assert ((assigned == -1).sum(dim=1) == N - budget).all()


def test_random_depends_on_the_image_alone_and_not_on_rounding():
    features, masks = features_and_masks(3, batch=64)
    compressor = build("random", GRID, 16)
    together = kept_patches(compressor(features, masks), features)
    alone = torch.cat(
        [kept_patches(compressor(f, ~m), f) for f, m in zip(features.split(1), masks.split(1), strict=True)]
    )
    assert torch.equal(together, alone)
    rounded = compressor.assign(masks, features * (1 + 1e-6 * torch.randn_like(features)))
    assert torch.equal(compressor.assign(masks, features), rounded)


def test_random_is_random():
    features, masks = features_and_masks(5, batch=2000)
    chosen = build("random", GRID, 36).assign(masks, features) >= 0  # (2000, N), a quarter of them True
    by_patch = chosen.float().mean(dim=0)
    assert by_patch.min() > 0.25 - 0.05 and by_patch.max() < 0.25 + 0.05  # five standard deviations
    by_pair = (chosen[:, :-1] & chosen[:, 1:]).float().mean(dim=0)
    assert (by_pair - 0.0612).abs().max() < 0.028
    assert chosen.unique(dim=0).shape[0] == 2000


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(2, N), st.floats(0.0, 1.0))
def test_region_only_keeps_the_region_evenly(seed, budget, density):
    features, _ = features_and_masks(seed)
    masks = torch.rand(4, N, generator=torch.Generator().manual_seed(seed)) < density
    compressor = build("region_only", GRID, budget)
    kept = kept_patches(compressor(features, masks), features)
    assigned = compressor.assign(masks, features)
    assert (kept.diff(dim=1) >= 0).all()
    for b in range(4):
        region = masks[b] if masks[b].any() else torch.ones(N, dtype=torch.bool)
        times = torch.bincount(kept[b], minlength=N)
        assert (times[~region] == 0).all()
        assert times[region].max() - times[region].min() <= 1  # thinned or repeated evenly
        assert torch.equal(assigned[b] >= 0, times > 0)
        for patch in times.nonzero()[:, 0]:
            assert assigned[b, patch] == (kept[b] == patch).nonzero()[0, 0]
