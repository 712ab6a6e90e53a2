"""VisionZip: keep the patches that CLS attends to most, and merge the others into a few tokens.

Yang et al., "VisionZip", CVPR 2025, arXiv 2412.04467; details are those of its published code. Of T tokens, 27 of 32
are dominant (54 of 64, 108 of 128, 162 of 192), CLS among them. Among the other patches, every n-th is a contextual
token; the mean of the patches whose keys are most like its own is added to it.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPVisionModel

from crop_model.cost.model import ModelShape
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration

from .before_llm import BeforeLLM
from .token_selection import along


@dataclass(frozen=True)
class VisionZip(BeforeLLM):
    """Keep CLS, the dominant patches, and contextual tokens."""

    name = "visionzip"

    def check_model(self, model: CropLlavaForConditionalGeneration) -> None:
        super().check_model(model)
        if not (
            isinstance(model.model.vision_tower, CLIPVisionModel)
            and model.config.vision_feature_select_strategy == "default"
            and isinstance(model.config.vision_feature_layer, int)
        ):
            raise ValueError("vision_tower: visionzip needs CLIP's patches and CLS, of one layer")

    def macs(self, shape: ModelShape) -> int:
        """Count the keys of a layer and the attention of CLS anew, the likeness of keys, and merging."""
        n, vision = shape.compressor.num_patches, shape.vision_tower
        d = vision.hidden_size
        dominant, contextual = visionzip_counts(shape.compressor.num_tokens)
        attention = d**2 + (n + 1) * (d**2 + d)
        return attention + contextual * (n - dominant) * (vision.head_size + d)

    def choose(self, model: CropLlavaForConditionalGeneration, tower: Any, features: Tensor) -> Tensor:
        states = _cls_attention(model.model.vision_tower, tower.hidden_states, model.config.vision_feature_layer)
        return visionzip(*states, model.model.compressor.num_tokens)


def visionzip(hidden_states: Tensor, attention: Tensor, keys: Tensor, num_tokens: int) -> Tensor:
    """Reduce one layer's states to T tokens.

    Args:
        hidden_states: (B, 1 + N, D), CLS first.
        attention: (B, N), that CLS pays to the patches, summed over heads.
        keys: (B, N, head size), averaged over heads.
        num_tokens: T.

    Returns:
        (B, T, D): CLS, the dominant patches in raster order, the contextual tokens.
    """
    dominant, others, targets = visionzip_split(attention, num_tokens)
    patches = hidden_states[:, 1:]
    rest = patches.gather(1, along(others, patches))  # (B, R, D)
    rest_keys = F.normalize(keys.gather(1, along(others, keys)), dim=-1)
    likeness = rest_keys @ rest_keys[:, targets].mT  # (B, R, C)
    assigned = F.one_hot(likeness.argmax(dim=-1), len(targets)).to(rest.dtype)
    assigned[:, targets] = 0  # targets stay where they are
    merged = assigned.mT @ rest / assigned.sum(dim=1).clamp(min=1)[..., None]  # (B, C, D)
    selected = patches.gather(1, along(dominant, patches))  # (B, d, D)
    return torch.cat([hidden_states[:, :1], selected, rest[:, targets] + merged], dim=1)


def visionzip_counts(num_tokens: int) -> tuple[int, int]:
    """Return how many patches are dominant, without CLS, and how many tokens contextual."""
    dominant = num_tokens * 27 // 32
    return dominant - 1, num_tokens - dominant


def visionzip_split(attention: Tensor, num_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return dominant patches (B, d) and others (B, R), in raster order, and the targets' ranks among these, (C,)."""
    count, contextual = visionzip_counts(num_tokens)
    top = attention.topk(count, dim=-1).indices
    is_dominant = torch.zeros_like(attention, dtype=torch.long).scatter(1, top, 1)
    order = is_dominant.argsort(dim=-1, stable=True)  # (B, N): the others first
    others, dominant = order.split([attention.shape[1] - count, count], dim=-1)
    step = max(1, others.shape[1] // contextual)
    targets = torch.arange(0, others.shape[1], step, device=attention.device)[:contextual]
    return dominant, others, targets


def _cls_attention(
    tower: CLIPVisionModel, hidden_states: tuple[Tensor, ...], layer: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute anew what `visionzip` reads of the layer that made the features, whatever attention the tower runs."""
    number = layer % len(hidden_states)  # the tower's input is hidden_states[0]
    block = tower.encoder.layers[number - 1]
    attention = block.self_attn
    states = block.layer_norm1(hidden_states[number - 1])  # (B, 1 + N, D)
    query = attention.q_proj(states[:, :1]).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
    keys = attention.k_proj(states).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)  # (B, heads, 1 + N, head)
    weights = (query @ keys.mT * attention.scale).float().softmax(dim=-1)  # (B, heads, 1, 1 + N)
    return hidden_states[number], weights[:, :, 0, 1:].sum(dim=1), keys[:, :, 1:].mean(dim=1)
