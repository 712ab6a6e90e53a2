"""Time greedy answers: when an accelerator has really written the first token, and when the last."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from .prompts import generate_greedily


@dataclass(frozen=True)
class Timings:
    """Hold the wall seconds of a batch, from images in memory on; its questions share them.

    Args:
        localization_s: to the regions; 0 without a localizer.
        first_token_s: to the first token of the answers, localization included.
        total_s: to the last one.
    """

    localization_s: float
    first_token_s: float
    total_s: float


class _FirstTokenClock(StoppingCriteria):
    """Note when `generate` first checks its criteria, after the first token; stop nothing."""

    at: float | None = None

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        if self.at is None:
            wait_for(input_ids.device)
            self.at = time.perf_counter()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)  # (B,)


def generate_timed(
    model: Any, inputs: Mapping[str, Tensor], pad_token_id: int | None, max_new_tokens: int
) -> tuple[Tensor, float]:
    """Return greedy answers (B, up to max_new_tokens), and `time.perf_counter()` at their first token."""
    clock = _FirstTokenClock()
    criteria = StoppingCriteriaList([clock])
    tokens = generate_greedily(model, inputs, pad_token_id, max_new_tokens, stopping_criteria=criteria)
    wait_for(tokens.device)
    assert clock.at is not None  # one token at least
    return tokens, clock.at


def wait_for(device: torch.device) -> None:
    """Wait until an accelerator has done what it was given; a CPU always has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
