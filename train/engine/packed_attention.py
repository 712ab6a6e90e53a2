"""Compute the attention of packed rows with PyTorch's own kernel, sample by sample.

    one mask over the row                  every sample for itself
    x . . . . . .                          x
    x x . . . . .     L^2 pairs            x x         sum of l_i^2 / 2 pairs: what the samples would
    . . x . . . .                              x       cost alone
    . . x x . . .                              x x

With `sdpa`, transformers computes every pair of a packed row and discards most of them. FlashAttention has a kernel for
packed rows; this is for machines without it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

BY_SAMPLE = "sdpa_by_sample"


def attend_by_sample(
    module: nn.Module,
    query: Tensor,  # (B, heads, L, head size); key and value with as many heads, or fewer
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    sample_lengths: Sequence[Sequence[int]] | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:  # (B, L, heads, head size)
    """Attend as transformers' `sdpa`; with `sample_lengths`, one list per row, attend causally within each sample.

    What follows the last sample of a row is padding. Its output is a zero that depends on its query, key and value:
    otherwise a row of padding only would leave their weights without a gradient while other processes average theirs.
    """
    if sample_lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    rows = []
    for row, lengths in enumerate(sample_lengths):
        parts = [x[row : row + 1].split([*lengths, x.shape[2] - sum(lengths)], dim=2) for x in (query, key, value)]
        samples = list(zip(*parts, strict=True))[: len(lengths)]
        outputs = [sdpa_attention_forward(module, *sample, None, **kwargs)[0] for sample in samples]
        padding = parts[0][-1].transpose(1, 2)  # (1, padding, heads, head size)
        rows.append(torch.cat([*outputs, 0 * (padding + parts[1][-1].sum() + parts[2][-1].sum())], dim=1))
    return torch.cat(rows), None


def use_attention_by_sample(language_model: PreTrainedModel) -> None:
    """Let the model's `sdpa` attention take `sample_lengths`; without them it is unchanged."""
    AttentionInterface.register(BY_SAMPLE, attend_by_sample)
    AttentionMaskInterface.register(BY_SAMPLE, sdpa_mask)
    language_model.set_attn_implementation(BY_SAMPLE)
