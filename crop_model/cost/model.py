"""Compute what a model costs by formula: MACs, FLOPs and bytes of KV cache, without running it.

Multiply-accumulates (MACs) of matrix products and convolutions are counted, with attention over all n x n pairs as
kernels and papers count it; FLOPs = 2 x MACs. Norms, activations, softmax and other elementwise work are not counted.

    one decoder layer, n tokens, width d, FFN width m, key-value width k:
        linear     n * (2 d^2 + 2 d k + 3 d m)         = 4 n d^2 + 3 n d m without grouped keys
        attention  2 n^2 d
    pruned from layer K on (ILP): n tokens in the first K layers, n' in the others
    training step with LoRA:  2 x linear (frozen weights get no gradient) + 3 x attention + 3 x the adapter's matrices,
                              each parameter of which is one MAC per token

LLaVA-1.5-7B with 576 visual tokens alone: 3.82 T MACs = 7.63 T FLOPs, and 302 MB of KV cache in fp16.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from crop_model.compressor_base import CompressorConfig
from crop_model.configuration_crop_llava import CropLlavaConfig


class Pruning(Protocol):
    """Describe the pruning inside the LLM, as `PruningConfig`: `token_budget` per image remain from `layer` on."""

    @property
    def layer(self) -> int: ...

    @property
    def token_budget(self) -> int: ...

    def macs(self, shape: "ModelShape", text_tokens: int, images: int) -> int:
        """Count what it takes to choose and to pool tokens of a prompt."""


@dataclass(frozen=True)
class LanguageModelShape:
    """Hold the sizes of a decoder like Llama: gated FFN, possibly grouped keys and values."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    key_value_size: int  # all key heads together: heads x head size
    query_size: int  # all query heads together
    vocab_size: int

    @classmethod
    def from_config(cls, text: Any) -> "LanguageModelShape":
        """Read transformers' configuration of a text model."""
        head_size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        return cls(
            hidden_size=text.hidden_size,
            intermediate_size=text.intermediate_size,
            num_layers=text.num_hidden_layers,
            key_value_size=text.num_key_value_heads * head_size,
            query_size=text.num_attention_heads * head_size,
            vocab_size=text.vocab_size,
        )

    def linear_macs(self, tokens: int) -> int:
        attention = 2 * self.hidden_size * (self.query_size + self.key_value_size)
        return tokens * self.num_layers * (attention + 3 * self.hidden_size * self.intermediate_size)

    def attention_macs(self, tokens: int) -> int:
        return 2 * tokens**2 * self.query_size * self.num_layers

    def head_macs(self, tokens: int) -> int:
        """Count the logits of that many tokens: one for prefill, every token for training."""
        return tokens * self.hidden_size * self.vocab_size

    def kv_bytes(self, tokens: int, bytes_per_value: int = 2) -> int:
        return 2 * tokens * self.num_layers * self.key_value_size * bytes_per_value

    def split(self, layer: int) -> tuple["LanguageModelShape", "LanguageModelShape"]:
        """Return the layers before `layer`, and those from it on."""
        return replace(self, num_layers=layer), replace(self, num_layers=self.num_layers - layer)


@dataclass(frozen=True)
class VisionTowerShape:
    """Hold the sizes of a vision transformer with a plain FFN."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    patch_size: int
    num_patches: int
    extra_tokens: int  # CLS
    head_size: int

    def macs(self) -> int:
        """Count one image's forward pass; all layers run, whichever one the features are taken from."""
        n, d = self.num_patches + self.extra_tokens, self.hidden_size
        layer = 4 * n * d**2 + 2 * n**2 * d + 2 * n * d * self.intermediate_size
        return self.num_layers * layer + self.num_patches * 3 * self.patch_size**2 * d


@dataclass(frozen=True)
class Parts:
    """Sum the MACs of a model's parts, the fields of a subclass."""

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))

    @property
    def flops(self) -> int:
        return 2 * self.total


@dataclass(frozen=True)
class Macs(Parts):
    """Hold the MACs of one sample."""

    vision_tower: int
    compressor: int
    projector: int
    language_linear: int
    language_attention: int
    head: int
    pruning: int = 0  # choosing and pooling tokens inside the LLM


@dataclass(frozen=True)
class ModelShape:
    """Hold the sizes that the cost of a LLaVA with a compressor depends on."""

    language_model: LanguageModelShape
    vision_tower: VisionTowerShape
    compressor: CompressorConfig

    @classmethod
    def from_config(cls, config: CropLlavaConfig) -> "ModelShape":
        """Read the sizes of a configuration; plain LLaVA is the compressor type `none`."""
        text, vision = config.text_config, config.vision_config
        rows, columns = config.patch_grid
        return cls(
            LanguageModelShape.from_config(text),
            VisionTowerShape(
                hidden_size=vision.hidden_size,
                intermediate_size=vision.intermediate_size,
                num_layers=vision.num_hidden_layers,
                patch_size=vision.patch_size,
                num_patches=rows * columns,
                extra_tokens=1 if config.vision_feature_select_strategy == "default" else 0,  # "default" drops CLS
                head_size=vision.hidden_size // vision.num_attention_heads,
            ),
            config.compressor_config,
        )

    def tokens(self, text_tokens: int, images: int = 1) -> int:
        """Return the length of the LLM's sequence."""
        return text_tokens + images * self.compressor.num_tokens

    def prefill(self, text_tokens: int, images: int = 1, pruning: Pruning | None = None) -> Macs:
        """Count the MACs up to the first answer token, for a prompt of `text_tokens` tokens beside its images."""
        parts, width = self._parts(text_tokens, images, pruning), self.language_model.hidden_size
        return Macs(
            vision_tower=images * self.vision_tower.macs(),
            compressor=images * self.compressor.macs(),
            projector=images * self.compressor.num_tokens * (self.compressor.hidden_size * width + width**2),
            language_linear=sum(layers.linear_macs(n) for layers, n in parts),
            language_attention=sum(layers.attention_macs(n) for layers, n in parts),
            head=self.language_model.head_macs(1),
            pruning=0 if pruning is None else pruning.macs(self, text_tokens, images),
        )

    def kv_bytes(
        self, text_tokens: int, images: int = 1, bytes_per_value: int = 2, pruning: Pruning | None = None
    ) -> int:
        """Count the bytes of the KV cache after prefill; two bytes per value in fp16 and bf16."""
        return sum(layers.kv_bytes(n, bytes_per_value) for layers, n in self._parts(text_tokens, images, pruning))

    def _parts(self, text_tokens: int, images: int, pruning: Pruning | None) -> list[tuple[LanguageModelShape, int]]:
        """Return layers of the LLM with the number of tokens that they work on."""
        n = self.tokens(text_tokens, images)
        if pruning is None:
            return [(self.language_model, n)]
        before, after = self.language_model.split(pruning.layer)
        return [(before, n), (after, text_tokens + images * pruning.token_budget)]

    def training_step(self, text_tokens: int, images: int = 1, adapter_parameters: int = 0) -> Macs:
        """Count one sample's forward and backward pass, question and answer; vision tower and LLM are frozen.

        Compressor and projector train, and LoRA's matrices in the language model, of `adapter_parameters` parameters.
        """
        forward, tokens = self.prefill(text_tokens, images), self.tokens(text_tokens, images)
        return Macs(
            vision_tower=forward.vision_tower,
            compressor=3 * forward.compressor,
            projector=3 * forward.projector,
            language_linear=2 * forward.language_linear + 3 * tokens * adapter_parameters,
            language_attention=3 * forward.language_attention,
            head=2 * self.language_model.head_macs(tokens),
        )
