"""The split of the token budget against its definition in exact fractions, and its limits."""

from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crop_model.allocation import allocate, allocate_without_anchors


def split(rule, n_in, n_out, token_budget, region_ratio):
    t_in, t_out = rule(torch.tensor([n_in]), torch.tensor([n_out]), token_budget, region_ratio)
    assert t_in.dtype == t_out.dtype == torch.int64
    return t_in.item(), t_out.item()


@st.composite
def cases(draw):
    n = draw(st.sampled_from([64, 144, 256, 576, 729]))
    n_in = draw(st.integers(0, n))
    return n_in, n - n_in, draw(st.integers(2, n)), draw(st.sampled_from([1.01, 1.5, 2.0, 4.0, 16.0, 100.0]))


@settings(max_examples=500)
@given(cases())
def test_limits(case):
    n_in, n_out, budget, _ = case
    for rule in (allocate, allocate_without_anchors):
        t_in, t_out = split(rule, *case)
        assert t_in + t_out == budget
        assert (t_in >= 1) if n_in else (t_in == 0)
        assert (t_out >= 1) if n_out else (t_out == 0)
        assert t_in <= n_in and t_out <= n_out


@settings(max_examples=500)
@given(cases())
def test_retention_inside_is_at_least_retention_outside(case):
    n_in, n_out, budget, _ = case
    assume(n_in > 0 and n_out > 0)
    t_in, t_out = split(allocate, *case)
    if n_out * (budget - 1) < n_in:  # even the one token that a group is owed is more than its share
        assert t_out == 1
    else:
        assert t_in * n_out >= t_out * n_in


@settings(max_examples=500)
@given(cases())
def test_share_is_the_formula_where_no_limit_is_met(case):
    n_in, n_out, budget, ratio = case
    share = Fraction(budget) * Fraction(ratio) * n_in / (Fraction(ratio) * n_in + n_out)
    t_in, _ = split(allocate, *case)
    low, high = max(1, budget - n_out, Fraction(budget * n_in, n_in + n_out)), min(n_in, budget - 1)
    assume(low <= share <= high)
    assert abs(t_in - share) <= Fraction(1, 2) + Fraction(1, 1000) or t_in == -(-budget * n_in // (n_in + n_out))


@settings(max_examples=300)
@given(cases())
def test_without_anchors_two_patches_make_a_token_of_the_region(case):
    n_in, n_out, budget, _ = case
    assume(n_in > 0)
    t_in, _ = split(allocate_without_anchors, *case)
    if n_in >= 2 and budget - n_out <= n_in // 2:  # else the outside cannot take the rest of the budget
        assert 2 * t_in <= n_in
    assert t_in <= split(allocate, *case)[0]


@pytest.mark.parametrize(("n_in", "t_in"), [(0, 0), (27, 27), (36, 33), (144, 54), (575, 63), (576, 64)])
def test_the_figures_of_the_docstring(n_in, t_in):
    assert split(allocate, n_in, 576 - n_in, 64, 16.0) == (t_in, 64 - t_in)


def test_a_batch_is_each_sample_alone():
    n_in = torch.arange(577)
    together = torch.stack(allocate(n_in, 576 - n_in, 64, 16.0))
    alone = torch.cat([torch.stack(allocate(n, 576 - n, 64, 16.0)) for n in n_in.split(1)], dim=1)
    assert torch.equal(together, alone)
