"""Prune inside the LLM: from layer K on, most visual tokens outside the region are dropped. No training.

                     layers 0 .. K-1             layers K .. L-1             after the last norm
    text             t t t . . . . . . t t       t t t             t t       t t t           t t
    region           . . . # # # . . . . .           # # #                         # # #
    rest, b - # left . . . o x x x o . . .                 o o                           0 0   (x: zeros)
    positions        0 1 2 3 4 5 6 7 8 9 ..      as they were                as they were
    KV cache         S entries a layer           S' entries a layer

Dropping tokens outside the contextual region in early LLM layers, without training, is CROP's idea. The layer and the
way to meet a budget were not in what we have of the paper; they are this project's design, configured by

    with prune(model, PruningConfig(layer=2, token_budget=64, rest="thinned")):
        model.generate(**inputs)  # with region_mask among them, as the processor made it

transformers' LLaVA and Llama run as they are: hooks on the layers >= K hand them fewer hidden states, the rotary
embeddings of those, and a causal mask of that length, so any attention implementation works and the cache of these
layers holds nothing else. Decoding steps need only the mask: the padding of the remaining tokens is stored per cache.

Rows of a batch may have different numbers of remaining tokens (no image, two images): padding goes to the left.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import LlamaModel
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask

from crop_model.compressor_base import Compressor
from crop_model.cost.model import ModelShape
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration

from .token_selection import along, attention_of_last_token, keep_evenly, keep_highest, pool_runs, regions_and_ranks

Rest = Literal["thinned", "pooled", "attention"]


@dataclass(frozen=True)
class PruningConfig:
    """Choose where the LLM prunes, and which tokens remain. ValueError if a value is out of its range.

    Args:
        layer: K, the first layer that works on the remaining tokens, counted from 0; 1 <= K < number of layers.
        token_budget: b, visual tokens per image that layers >= K read; compressed ones if the model compresses before
            the LLM.
        rest: which tokens remain if not all can: `thinned`, evenly spread along the compressor's curve; `pooled`, the
            same, each the mean of its run's hidden states; `attention`, those to which the last token of the prompt
            pays most attention in layer K - 1, averaged over heads. Applied to the region too if it exceeds b, and to
            all tokens if no region is known.
    """

    layer: int
    token_budget: int
    rest: Rest = "thinned"

    def __post_init__(self) -> None:
        if self.layer < 1:
            raise ValueError(f"layer: {self.layer} is below 1; before layer 0 it is the compressor that drops tokens")
        if self.token_budget < 1:
            raise ValueError(f"token_budget: {self.token_budget} is below 1")
        if self.rest not in get_args(Rest):
            raise ValueError(f"rest: {self.rest!r} is none of {', '.join(get_args(Rest))}")

    def mean_tokens(self, visual_tokens: int, num_layers: int) -> float:
        """Average the visual tokens per image over layers, (K N + (L - K) b) / L; `token_budget` counts those after K.

        Both conventions are in use: with N = 576, L = 32, K = 2, a budget of 64 is 96 on average.
        """
        return (self.layer * visual_tokens + (num_layers - self.layer) * self.token_budget) / num_layers

    def macs(self, shape: ModelShape, text_tokens: int, images: int) -> int:
        """Count what it takes to choose and to pool the tokens of a prompt.

        Thinning costs no products. Attention is the last token's alone, before its product with the values.
        """
        tokens = shape.compressor.num_tokens
        if self.rest == "attention":
            return shape.tokens(text_tokens, images) * shape.language_model.query_size
        if self.rest == "pooled" and self.token_budget < tokens:
            return images * (self.token_budget + 1) * tokens * shape.language_model.hidden_size
        return 0


def budget_for_mean(mean_tokens: float, layer: int, visual_tokens: int, num_layers: int) -> int:
    """Return the largest `token_budget` with a mean over layers up to `mean_tokens`. ValueError if there is none."""
    budget = int((mean_tokens * num_layers - layer * visual_tokens) // (num_layers - layer))
    if budget < 1:
        raise ValueError(
            f"mean_tokens: {mean_tokens} of {visual_tokens} over {num_layers} layers cannot be met from layer {layer}"
        )
    return min(budget, visual_tokens)


@contextmanager
def prune(model: CropLlavaForConditionalGeneration, config: PruningConfig) -> Iterator[None]:
    """Prune in every forward pass and `generate` inside the `with` block.

    The outputs keep their length: logits stand at their tokens' positions, and those of dropped tokens mean nothing
    (their last hidden state is zero). A cache filled inside the block is for the block alone. Without a cache, each
    step of `generate` is a prompt of its own, so that `attention` may choose anew. The model may compress by any type,
    `none` for pruning alone.

    Raises:
        ValueError: on entry, a layer or a budget that the model does not have, or another LLM than Llama; in a forward
            pass, embeddings instead of ids, a prepared 4D mask (as static caches need), packed samples, an image after
            the first part of a prompt, or images encoded or a cache filled elsewhere.
    """
    language_model = model.model.language_model
    if not isinstance(language_model, LlamaModel):
        raise ValueError(f"language_model: pruning knows Llama, not {type(language_model).__name__}")
    if config.layer >= len(language_model.layers):
        raise ValueError(f"layer: {config.layer} is not below the LLM's {len(language_model.layers)} layers")
    visual_tokens = model.model.compressor.num_tokens
    if config.token_budget > visual_tokens:
        raise ValueError(f"token_budget: {config.token_budget} is more than an image's {visual_tokens} visual tokens")
    with ExitStack() as hooks:
        for handle in _Pruner(model, config).attach():
            hooks.enter_context(handle)
        yield


@dataclass
class _Prompt:
    """Hold the tokens that layers >= K read of a prompt of B rows and S tokens."""

    index: Tensor  # (B, S') positions in the prompt, ascending
    real: Tensor  # bool (B, S'), False where a row is padded
    length: int  # S


class _Pruner:
    """Hold the hooks, and what they share within a forward pass."""

    def __init__(self, model: CropLlavaForConditionalGeneration, config: PruningConfig):
        self.model = model.model
        self.llm: LlamaModel = model.model.language_model
        self.config = config
        self.prompts: WeakKeyDictionary[Cache, _Prompt] = WeakKeyDictionary()
        self.images: tuple[Tensor, ...] = ()  # encoded last: region and rank of tokens, (M, T) each
        self.input_ids: Tensor
        self.real: Tensor | None = None  # the attention mask, bool, padding is False
        self.queries: Tensor  # (B, S, heads * head size) of layer K - 1, before rotation
        self.keys: Tensor
        self.pruned: _Prompt | None = None  # this forward pass's prompt; None in a decoding step
        self.replaced: dict[str, Any] = {}  # arguments of the layers >= K in this forward pass

    def attach(self) -> list[torch.utils.hooks.RemovableHandle]:
        layer, later = self.llm.layers[self.config.layer], self.llm.layers[self.config.layer + 1 :]
        handles = [
            self.model.register_forward_pre_hook(self._read_inputs, with_kwargs=True),
            self.model.compressor.register_forward_hook(self._read_regions),
            layer.register_forward_pre_hook(self._enter_first_layer, with_kwargs=True),
            *(other.register_forward_pre_hook(self._enter_later_layer, with_kwargs=True) for other in later),
            self.llm.norm.register_forward_hook(self._restore_length),
        ]
        if self.config.rest == "attention":
            attention = self.llm.layers[self.config.layer - 1].self_attn
            handles.append(attention.q_proj.register_forward_hook(self._read_queries))
            handles.append(attention.k_proj.register_forward_hook(self._read_keys))
        return handles

    def _read_inputs(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        input_ids = args[0] if args else kwargs.get("input_ids")
        if input_ids is None:
            raise ValueError("input_ids: pruning finds visual tokens by them; inputs_embeds do not show which they are")
        mask = kwargs.get("attention_mask")
        if mask is not None and mask.dim() != 2:
            raise ValueError(f"attention_mask: pruning needs one of two dimensions, not {mask.dim()} (static caches)")
        positions = kwargs.get("position_ids")
        if mask is None and positions is not None and (positions.diff(dim=-1) < 0).any():
            raise ValueError("position_ids: they start again within a row; packed samples cannot be pruned")
        self.input_ids, self.real = input_ids, None if mask is None else mask.bool()

    def _read_regions(self, compressor: Compressor, args: tuple[Tensor, Tensor], _: Tensor) -> None:
        features, region_mask = args  # (M, N, D), (M, N)
        self.images = regions_and_ranks(compressor, features, region_mask)

    def _read_queries(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self.queries = output

    def _read_keys(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self.keys = output

    def _enter_first_layer(self, module: nn.Module, args: tuple[Tensor], kwargs: dict[str, Any]):
        (hidden_states,) = args  # (B, S, H)
        cache = kwargs["past_key_values"]
        if cache is not None and cache.get_seq_length(self.config.layer) > 0:
            self._continue(hidden_states, cache)
        else:
            hidden_states = self._start(hidden_states, cache, kwargs["position_embeddings"])
        return (hidden_states,), {**kwargs, **self.replaced}

    def _enter_later_layer(self, module: nn.Module, args: tuple[Tensor], kwargs: dict[str, Any]):
        return args, {**kwargs, **self.replaced}

    def _restore_length(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        """Restore a prompt's length, with zeros at dropped tokens: (B, S', H) -> (B, S, H)."""
        if self.pruned is None:
            return output
        output = output.masked_fill(~self.pruned.real[..., None], 0)
        full = output.new_zeros(output.shape[0], self.pruned.length, output.shape[-1])
        return full.scatter(1, along(self.pruned.index, output), output)

    def _continue(self, hidden_states: Tensor, cache: Cache) -> None:
        """Prepare a step after the prompt: nothing is dropped; the prompt's keys are those of its remaining tokens."""
        new = hidden_states.shape[1]
        if new > 1 and (self.input_ids == self.model.config.image_token_id).any():
            raise ValueError("input_ids: pruning needs a prompt's images in its first forward pass")
        if cache not in self.prompts:
            raise ValueError("past_key_values: this cache was not filled under this pruning")
        prompt = self.prompts[cache]
        since = cache.get_seq_length(self.config.layer) + new - prompt.real.shape[1]  # tokens after the prompt
        later = prompt.real.new_ones(prompt.real.shape[0], since) if self.real is None else self.real[:, -since:]
        self.pruned = None
        self.replaced = {"attention_mask": self._mask(hidden_states, torch.cat([prompt.real, later], dim=1), cache)}

    def _start(self, hidden_states: Tensor, cache: Cache | None, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """Drop tokens of a prompt: (B, S, H) -> (B, S', H)."""
        real = torch.ones_like(self.input_ids, dtype=torch.bool) if self.real is None else self.real  # (B, S)
        visual = self.input_ids == self.model.config.image_token_id
        keep = real
        if visual.any():
            remaining, run = self._choose(visual, real, rotary)  # (M, T)
            keep = real.masked_scatter(visual, remaining)
            if run is not None:
                hidden_states = pool_runs(hidden_states, visual, remaining, run, self.config.token_budget)
        self.pruned = _pack(keep)
        if cache is not None:
            self.prompts[cache] = self.pruned
        hidden_states = hidden_states.gather(1, along(self.pruned.index, hidden_states))
        self.replaced = {
            "attention_mask": self._mask(hidden_states, self.pruned.real, cache),
            "position_embeddings": tuple(
                part.expand(len(keep), -1, -1).gather(1, along(self.pruned.index, part)) for part in rotary
            ),
            "position_ids": None,  # in the embeddings already; FlashAttention takes gaps for packed sequences
        }
        return hidden_states

    def _choose(self, visual: Tensor, real: Tensor, rotary: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return the remaining tokens of all images, bool (M, T), and for `pooled` every token's run, (M, T)."""
        if not self.images or int(visual.sum()) % self.images[0].numel():
            raise ValueError("mm_encoder_outputs: these are not the images encoded last under this pruning")
        region, rank = (self._of_rows(of_images, visual) for of_images in self.images)
        if self.config.rest == "attention":
            attention = self.llm.layers[self.config.layer - 1].self_attn
            score = attention_of_last_token(attention, self.queries, self.keys, rotary, real)[visual].view_as(rank)
            return keep_highest(score, region, self.config.token_budget), None
        remaining, run = keep_evenly(rank, region, self.config.token_budget)
        return remaining, run if self.config.rest == "pooled" else None

    def _of_rows(self, of_images: Tensor, visual: Tensor) -> Tensor:
        """Repeat (M, T) values of encoded images for a batch's images: beams repeat rows, but encode images once."""
        repeats = int(visual.sum()) // of_images.numel()
        rows = torch.zeros_like(visual[::repeats], dtype=of_images.dtype)  # (B / repeats, S)
        rows = rows.masked_scatter(visual[::repeats], of_images).repeat_interleave(repeats, dim=0)
        return rows[visual].view(-1, of_images.shape[1])

    def _mask(self, hidden_states: Tensor, real: Tensor, cache: Cache | None) -> Any:
        """Make the causal mask of layers >= K in the attention implementation's form."""
        return create_causal_mask(
            config=self.llm.config,
            inputs_embeds=hidden_states,
            attention_mask=real,
            past_key_values=cache,
            layer_idx=self.config.layer,
        )


def _pack(keep: Tensor) -> _Prompt:
    """Order the positions to keep, bool (B, S), padded on the left to the longest row."""
    count = keep.sum(dim=-1, keepdim=True)  # (B, 1)
    longest = int(count.max())
    index = keep.long().argsort(dim=-1, stable=True)[:, -longest:]
    real = torch.arange(longest, device=keep.device) >= longest - count
    return _Prompt(index, real, keep.shape[1])
