"""Published training-free baselines that choose visual tokens before the LLM, by their own rules: DivPrune, VisionZip.

    model = CropLlavaForConditionalGeneration.from_pretrained(checkpoint, compressor_type="random", token_budget=64)
    with training_free(model, "visionzip"):
        model.generate(**inputs)

Both look at the image alone: question and region change nothing, and `prune` cannot tell which of their tokens are of
the region. The method takes the place of the random patches, so
that processor, budget, projector and LLM are those of every other row of a table. FastV, which prunes inside the LLM,
is `PruningConfig(layer=2, token_budget=..., rest="attention")` of pruning.py without regions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from transformers import CLIPVisionModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from crop_model.compressor_base import Compressor
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration

from .token_selection import along

Method = Literal["divprune", "visionzip"]


@contextmanager
def training_free(model: CropLlavaForConditionalGeneration, method: Method) -> Iterator[None]:
    """Replaces the tokens of a `random` compressor by those of `method` inside the `with` block.

    Raises:
        ValueError: an unknown method, another compressor, or, for VisionZip, a tower without CLIP's CLS and layers.
    """
    _check(model, method)
    tower_said: list[BaseModelOutputWithPooling] = []

    def read_tower(tower: Any, args: tuple, output: BaseModelOutputWithPooling) -> None:
        tower_said[:] = [output]  # as a whole: later hooks may change it

    def replace_tokens(compressor: Compressor, args: tuple[torch.Tensor, torch.Tensor], _: torch.Tensor):
        features, _ = args  # (B, N, D)
        if method == "visionzip":
            hidden_states, layer = tower_said[0].hidden_states, model.config.vision_feature_layer
            return visionzip(*_cls_attention(model.model.vision_tower, hidden_states, layer), compressor.num_tokens)
        kept = max_min_diverse(model.model.multi_modal_projector(features), compressor.num_tokens)
        return features.gather(1, along(kept, features))

    handles = [
        model.model.vision_tower.register_forward_hook(read_tower),
        model.model.compressor.register_forward_hook(replace_tokens),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _check(model: CropLlavaForConditionalGeneration, method: str) -> None:
    config = model.config
    if method not in get_args(Method):
        raise ValueError(f"method: {method!r} is none of {', '.join(get_args(Method))}")
    if config.compressor_type != "random":
        raise ValueError(f"compressor_type: {method} takes the place of `random`, not of {config.compressor_type!r}")
    if method == "visionzip" and not (
        isinstance(model.model.vision_tower, CLIPVisionModel)
        and config.vision_feature_select_strategy == "default"
        and isinstance(config.vision_feature_layer, int)
    ):
        raise ValueError("vision_tower: visionzip needs CLIP's patches and CLS, of one layer")


def max_min_diverse(tokens: torch.Tensor, count: int) -> torch.Tensor:
    """DivPrune: tokens whose smallest pairwise distance is large, chosen greedily.

    Alvar et al., "DivPrune", CVPR 2025, arXiv 2503.02175: the Max-Min Diversity Problem over cosine distances of the
    projected visual tokens. First comes the token farthest from its nearest neighbour, then always the one farthest
    from the nearest of those chosen.

    Args:
        tokens: (B, N, H), behind the projector.
        count: T <= N.

    Returns:
        int64 (B, T), ascending.
    """
    unit = F.normalize(tokens.float(), dim=-1)
    distance = 1 - unit @ unit.mT  # (B, N, N)
    itself = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
    nearest = distance.masked_fill(itself, float("inf")).amin(dim=-1)  # (B, N): to the nearest other
    chosen: list[torch.Tensor] = []
    for _ in range(count):
        best = nearest.argmax(dim=-1, keepdim=True)  # (B, 1)
        to_best = distance.gather(1, along(best, distance)).squeeze(1)  # (B, N)
        nearest = to_best if not chosen else torch.minimum(nearest, to_best)
        chosen.append(best)
        nearest = nearest.scatter(1, torch.cat(chosen, dim=1), float("-inf"))
    return torch.cat(chosen, dim=1).sort(dim=-1).values


def visionzip(
    hidden_states: torch.Tensor, attention: torch.Tensor, keys: torch.Tensor, num_tokens: int
) -> torch.Tensor:
    """VisionZip: the patches that CLS attends to most, and a few that the others are merged into.

    Yang et al., "VisionZip", CVPR 2025, arXiv 2412.04467; details are those of its published code. Of T tokens, 27 of
    32 are dominant (54 of 64, 108 of 128, 162 of 192), CLS among them. Of the other patches, every n-th is a
    contextual token: to it comes the mean of those patches whose keys are most like its own.

    Args:
        hidden_states: (B, 1 + N, D), CLS first.
        attention: (B, N), what CLS pays to the patches, summed over heads.
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
    goes_to = F.one_hot(likeness.argmax(dim=-1), len(targets)).to(rest.dtype)
    goes_to[:, targets] = 0  # targets stay where they are
    merged = goes_to.mT @ rest / goes_to.sum(dim=1).clamp(min=1)[..., None]  # (B, C, D)
    kept = patches.gather(1, along(dominant, patches))
    return torch.cat([hidden_states[:, :1], kept, rest[:, targets] + merged], dim=1)


def visionzip_counts(num_tokens: int) -> tuple[int, int]:
    """Dominant patches, without CLS, and contextual tokens."""
    dominant = num_tokens * 27 // 32
    return dominant - 1, num_tokens - dominant


def visionzip_split(attention: torch.Tensor, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Dominant patches (B, d) and the others (B, R), in raster order; the ranks of targets among the others, (C,)."""
    count, contextual = visionzip_counts(num_tokens)
    top = attention.topk(count, dim=-1).indices
    is_dominant = torch.zeros_like(attention, dtype=torch.long).scatter(1, top, 1)
    order = is_dominant.argsort(dim=-1, stable=True)  # (B, N): the others first
    others, dominant = order.split([attention.shape[1] - count, count], dim=-1)
    step = max(1, others.shape[1] // contextual)
    targets = torch.arange(0, others.shape[1], step, device=attention.device)[:contextual]
    return dominant, others, targets


def _cls_attention(
    tower: CLIPVisionModel, hidden_states: tuple[torch.Tensor, ...], layer: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What `visionzip` needs of the layer that made the features; computed anew, whatever attention the tower runs."""
    place = layer % len(hidden_states)  # the tower's input is hidden_states[0]
    block = tower.encoder.layers[place - 1]
    attention = block.self_attn
    states = block.layer_norm1(hidden_states[place - 1])  # (B, 1 + N, D)
    query = attention.q_proj(states[:, :1]).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
    keys = attention.k_proj(states).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)  # (B, heads, 1 + N, head)
    weights = (query @ keys.mT * attention.scale).float().softmax(dim=-1)  # (B, heads, 1, 1 + N)
    return hidden_states[place], weights[:, :, 0, 1:].sum(dim=1), keys[:, :, 1:].mean(dim=1)
