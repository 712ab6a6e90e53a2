"""Select the visual tokens of an image that remain within a budget. This project's design, for inside_llm.py.

The region comes first: it keeps all its tokens while the budget lasts, and the rest of the image gets the remainder.

    T tokens, budget b        region <= b                    region > b
    . . . . # # . .           . . o . # # . o                . . . . # o . .
    . . . . # # . .    ->     o . . . # # . .       or       . . . . o # . .
    . . . . . . . .           . . . o . . o .                . . . . . . . .
    n_in of the region (#)    t_in = n_in                    t_in = b
                              t_out = b - n_in of the rest   t_out = 0

Within a group of n tokens that may keep t, either every t-th part of it along the compressor's curve keeps its middle
token, or the t tokens of the highest score remain. If no region is known, or the whole image: one group.

Shapes: M images of T tokens. Nothing is read back from the device.
"""

import torch
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaAttention, apply_rotary_pos_emb, repeat_kv

from crop_model.compressor_base import Compressor
from crop_model.slots import cut, pool


def keep_evenly(rank: Tensor, region: Tensor, token_budget: int) -> tuple[Tensor, Tensor]:
    """Cut region and rest into `token_budget` runs along a curve, and keep the middle of each run.

    Args:
        rank: (M, T) numbers that order the tokens along the curve.
        region: bool (M, T), the tokens of the contextual region.
        token_budget: b <= T.

    Returns:
        remaining: bool (M, T), b of them True.
        run: int64 (M, T), the run of every token, 0..b-1; b for the tokens of a rest that gets nothing. Each run
            keeps exactly one token.
    """
    on_curve = rank.argsort(dim=-1, stable=True)  # (M, T)
    region = region.gather(1, on_curve)  # in the order of the curve until the last step
    t_in = region.sum(dim=-1).clamp(max=token_budget)  # (M,)
    run, rank_in_run, size = cut(region, t_in, token_budget - t_in)
    remaining = (rank_in_run == size // 2) & (run < token_budget)
    back = on_curve.argsort(dim=-1)
    return remaining.gather(1, back), run.gather(1, back)


def keep_highest(score: Tensor, region: Tensor, token_budget: int) -> Tensor:
    """Keep the `token_budget` tokens of the highest score (M, T), those of the region first: bool (M, T).

    The first in order wins among equal scores.
    """
    order = score.argsort(dim=-1, descending=True, stable=True)  # (M, T)
    region_first = (~region.gather(1, order)).long().argsort(dim=-1, stable=True)
    best = order.gather(1, region_first)[:, :token_budget]
    return torch.zeros_like(region).scatter(1, best, True)


def regions_and_ranks(compressor: Compressor, features: Tensor, region_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Find out which tokens of a compressor carry a patch of the region, and their order on its curve.

    Args:
        compressor: of N patches to T tokens.
        features, region_mask: (M, N, D) and bool (M, N), its inputs.

    Returns:
        region: bool (M, T).
        rank: int64 (M, T), the first rank on the curve among a token's patches; N for a token without any.
    """
    token = compressor.assign(region_mask, features)  # (M, N): of every patch, -1 where it is dropped
    tokens, patches = compressor.num_tokens, token.shape[1]
    token = torch.where(token < 0, tokens, token)
    none = token.new_zeros(len(token), tokens + 1)
    region = none.scatter_reduce(1, token, region_mask.long(), "amax")
    rank = (none + patches).scatter_reduce(1, token, compressor.rank_on_curve.expand_as(token), "amin")
    return region[:, :tokens].bool(), rank[:, :tokens]


def attention_of_last_token(
    attention: LlamaAttention, queries: Tensor, keys: Tensor, rotary: tuple[Tensor, Tensor], real: Tensor
) -> Tensor:
    """Compute the attention of each row's last real token, averaged over heads, in float32: (B, S).

    Args:
        attention: the layer.
        queries, keys: (B, S, heads * head size) of the layer's projections, before rotation.
        rotary: cosines and sines, (1 or B, S, head size).
        real: bool (B, S), False at padding.
    """
    queries, keys = (states.unflatten(-1, (-1, attention.head_dim)).transpose(1, 2) for states in (queries, keys))
    queries, keys = apply_rotary_pos_emb(queries, keys, *rotary)
    keys = repeat_kv(keys, attention.num_key_value_groups)  # (B, heads, S, head size)
    position = torch.arange(real.shape[1], device=real.device)
    last = (position * real).argmax(dim=-1)  # (B,)
    query = queries[torch.arange(len(last), device=last.device), :, last]  # (B, heads, head size)
    scores = (keys @ query[..., None]).squeeze(-1).float() * attention.scaling  # (B, heads, S)
    return scores.masked_fill(~real[:, None], float("-inf")).softmax(dim=-1).mean(dim=1)


def pool_runs(hidden_states: Tensor, visual: Tensor, remaining: Tensor, run: Tensor, token_budget: int) -> Tensor:
    """Replace every remaining visual token by the mean of its run.

    Args:
        hidden_states: (B, S, H);  visual: bool (B, S), M * T times True.
        remaining, run: of `keep_evenly`.
    """
    if token_budget == remaining.shape[1]:
        return hidden_states  # every run is one token
    tokens = hidden_states[visual].view(*remaining.shape, -1)  # (M, T, H)
    means = pool(tokens, run, token_budget + 1)  # the last run, maybe empty, is of dropped tokens
    pooled = torch.where(remaining[..., None], means.gather(1, along(run, tokens)), tokens)
    return hidden_states.masked_scatter(visual[..., None], pooled)


def along(index: Tensor, states: Tensor) -> Tensor:
    """Expand indices (B, n) to (B, n, width of the states), for `gather` and `scatter` along the second dimension."""
    return index[..., None].expand(-1, -1, states.shape[-1])
