"""DivPrune: choose visual tokens that differ most from each other.

Alvar et al., "DivPrune", CVPR 2025, arXiv 2503.02175: the Max-Min Diversity Problem over cosine distances of the
projected visual tokens.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from crop_model.cost.model import ModelShape
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration

from .before_llm import BeforeLLM
from .token_selection import along


@dataclass(frozen=True)
class DivPrune(BeforeLLM):
    """Keep the patches whose projected features differ most."""

    name = "divprune"

    def macs(self, shape: ModelShape) -> int:
        """Count all patches through the projector, and their distances."""
        n, d, width = shape.compressor.num_patches, shape.vision_tower.hidden_size, shape.language_model.hidden_size
        return n * (d * width + width**2) + n**2 * width

    def choose(self, model: CropLlavaForConditionalGeneration, tower: Any, features: Tensor) -> Tensor:
        projected = model.model.multi_modal_projector(features)  # (B, N, H)
        chosen = max_min_diverse(projected, model.model.compressor.num_tokens)  # (B, T)
        return features.gather(1, along(chosen, features))


def max_min_diverse(tokens: Tensor, count: int) -> Tensor:
    """Choose tokens whose smallest pairwise distance is large, greedily: their numbers, int64 (B, T), ascending.

    The first is the token farthest from its nearest neighbour. Each further one is farthest from the nearest of those
    chosen before.

    Args:
        tokens: (B, N, H), behind the projector.
        count: T <= N.
    """
    unit = F.normalize(tokens.float(), dim=-1)
    distance = 1 - unit @ unit.mT  # (B, N, N)
    itself = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
    nearest = distance.masked_fill(itself, float("inf")).amin(dim=-1)  # (B, N), to the nearest other token
    chosen: list[Tensor] = []
    for _ in range(count):
        best = nearest.argmax(dim=-1, keepdim=True)  # (B, 1)
        to_best = distance.gather(1, along(best, distance)).squeeze(1)  # (B, N)
        nearest = to_best if not chosen else torch.minimum(nearest, to_best)
        chosen.append(best)
        nearest = nearest.scatter(1, torch.cat(chosen, dim=1), float("-inf"))
    return torch.cat(chosen, dim=1).sort(dim=-1).values
