"""What a model costs by formula: MACs, FLOPs and bytes of KV cache, without running it.

Counted are multiply-accumulates (MACs) of matrix products and convolutions, with attention over all n x n pairs as
kernels and papers count it; FLOPs = 2 x MACs. Norms, activations, softmax and other elementwise work are not.

    one decoder layer, n tokens, width d, FFN width m, key-value width k:
        linear     n * (2 d^2 + 2 d k + 3 d m)         = 4 n d^2 + 3 n d m without grouped keys
        attention  2 n^2 d
    pruned from layer K on (ILP): n tokens in the first K layers, n' in the others
    training step with LoRA:  2 x linear (frozen weights get no gradient) + 3 x attention + 3 x the adapter's matrices,
                              each parameter of which is one MAC a token
    full fine-tuning:         3 x both;   activation checkpointing: one forward more

LLaVA-1.5-7B with 576 visual tokens alone: 3.82 T MACs = 7.63 T FLOPs, and 302 MB of KV cache in fp16.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from crop_model.compressor_base import CompressorConfig
from crop_model.configuration_crop_llava import CropLlavaConfig
from crop_model.training_free.before_llm import Method, visionzip_counts
from crop_model.training_free.inside_llm import PruningConfig

Training = Literal["lora", "full"]


@dataclass(frozen=True)
class LanguageModelShape:
    """A decoder of Llama's kind: gated FFN, possibly grouped keys and values."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    key_value_size: int  # of all key heads together: heads x head size
    query_size: int  # of all query heads together
    vocab_size: int

    @classmethod
    def from_config(cls, text: Any) -> "LanguageModelShape":
        """Of transformers' configuration of a text model."""
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
        """Of the logits of that many tokens: one for prefill, every token for training."""
        return tokens * self.hidden_size * self.vocab_size

    def kv_bytes(self, tokens: int, bytes_per_value: int = 2) -> int:
        return 2 * tokens * self.num_layers * self.key_value_size * bytes_per_value

    def split(self, layer: int) -> tuple["LanguageModelShape", "LanguageModelShape"]:
        """The layers before `layer`, and those from it on."""
        return replace(self, num_layers=layer), replace(self, num_layers=self.num_layers - layer)


@dataclass(frozen=True)
class VisionTowerShape:
    """A vision transformer with a plain FFN."""

    hidden_size: int
    intermediate_size: int
    num_layers: int
    patch_size: int
    num_patches: int
    extra_tokens: int  # CLS
    head_size: int

    def macs(self) -> int:
        """One image, forward; all layers run, whichever one the features are taken from."""
        n, d = self.num_patches + self.extra_tokens, self.hidden_size
        layer = 4 * n * d**2 + 2 * n**2 * d + 2 * n * d * self.intermediate_size
        return self.num_layers * layer + self.num_patches * 3 * self.patch_size**2 * d


@dataclass(frozen=True)
class Macs:
    """MACs of one sample, part by part."""

    vision_tower: int
    compressor: int
    projector: int
    language_linear: int
    language_attention: int
    head: int
    pruning: int = 0  # what it takes to choose and to pool tokens inside the LLM

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))

    @property
    def flops(self) -> int:
        return 2 * self.total


@dataclass(frozen=True)
class ModelShape:
    """What the cost of a CROP LLaVA depends on."""

    language_model: LanguageModelShape
    vision_tower: VisionTowerShape
    compressor: CompressorConfig

    @classmethod
    def from_config(cls, config: CropLlavaConfig) -> "ModelShape":
        """Reads the sizes of a configuration; plain LLaVA is the compressor type `none`."""
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

    def projector_macs(self) -> int:
        """LLaVA's two layers, on one image's tokens."""
        width = self.language_model.hidden_size
        return self.compressor.num_tokens * (self.compressor.hidden_size * width + width**2)

    def training_free_macs(self, method: Method) -> int:
        """What `training_free` adds to one image, beside a compressor that selects patches for nothing.

        DivPrune: all patches through the projector, and their distances. VisionZip: keys of a layer and the attention
        of CLS anew, likeness of keys, merging.
        """
        n, width, vision = self.compressor.num_patches, self.language_model.hidden_size, self.vision_tower
        d = vision.hidden_size
        if method == "divprune":
            return n * (d * width + width**2) + n**2 * width
        dominant, contextual = visionzip_counts(self.compressor.num_tokens)
        attention = d**2 + (n + 1) * (d**2 + d)
        return attention + contextual * (n - dominant) * (vision.head_size + d)

    def tokens(self, text_tokens: int, images: int = 1) -> int:
        """Length of the LLM's sequence."""
        return text_tokens + images * self.compressor.num_tokens

    def prefill(
        self,
        text_tokens: int,
        images: int = 1,
        pruning: PruningConfig | None = None,
        training_free: Method | None = None,
    ) -> Macs:
        """MACs up to the first answer token, of a prompt of `text_tokens` tokens beside its images.

        What `training_free` adds stands under `compressor`, whose place it takes.
        """
        parts = self._parts(text_tokens, images, pruning)
        chosen = 0 if training_free is None else self.training_free_macs(training_free)
        return Macs(
            vision_tower=images * self.vision_tower.macs(),
            compressor=images * (self.compressor.macs() + chosen),
            projector=images * self.projector_macs(),
            language_linear=sum(layers.linear_macs(n) for layers, n in parts),
            language_attention=sum(layers.attention_macs(n) for layers, n in parts),
            head=self.language_model.head_macs(1),
            pruning=0 if pruning is None else self._pruning_macs(text_tokens, images, pruning),
        )

    def kv_bytes(
        self, text_tokens: int, images: int = 1, bytes_per_value: int = 2, pruning: PruningConfig | None = None
    ) -> int:
        """Bytes of the KV cache after prefill; two bytes a value in fp16 and bf16."""
        parts = self._parts(text_tokens, images, pruning)
        return sum(layers.kv_bytes(n, bytes_per_value) for layers, n in parts)

    def _parts(
        self, text_tokens: int, images: int, pruning: PruningConfig | None
    ) -> list[tuple[LanguageModelShape, int]]:
        """Layers of the LLM, and how many tokens they work on."""
        n = self.tokens(text_tokens, images)
        if pruning is None:
            return [(self.language_model, n)]
        before, after = self.language_model.split(pruning.layer)
        return [(before, n), (after, text_tokens + images * pruning.token_budget)]

    def _pruning_macs(self, text_tokens: int, images: int, pruning: PruningConfig) -> int:
        """Thinning costs no products. Attention is the last token's alone, before its product with the values."""
        tokens, budget = self.compressor.num_tokens, pruning.token_budget
        if pruning.rest == "attention":
            return self.tokens(text_tokens, images) * self.language_model.query_size
        if pruning.rest == "pooled" and budget < tokens:
            return images * (budget + 1) * tokens * self.language_model.hidden_size
        return 0

    def training_step(
        self,
        text_tokens: int,
        images: int = 1,
        training: Training = "lora",
        activation_checkpointing: bool = False,
        adapter_parameters: int = 0,
    ) -> Macs:
        """MACs of one sample's forward and backward; the vision tower is frozen, compressor and projector train.

        `text_tokens` counts question and answer, `adapter_parameters` those of LoRA's matrices in the language model.
        """
        forward = self.prefill(text_tokens, images)
        head = self.language_model.head_macs(self.tokens(text_tokens, images))
        linear = 2 if training == "lora" else 3
        again = 1 if activation_checkpointing else 0
        return Macs(
            vision_tower=forward.vision_tower,
            compressor=3 * forward.compressor,
            projector=3 * forward.projector,
            language_linear=(linear + again) * forward.language_linear
            + (3 + again) * self.tokens(text_tokens, images) * adapter_parameters,
            language_attention=(3 + again) * forward.language_attention,
            head=linear * head,
        )


def speedup_limit(
    full: ModelShape,
    compressed: ModelShape,
    text_tokens: int,
    training: Training = "lora",
    activation_checkpointing: bool = False,
) -> float:
    """How many times faster compression can make a training step at most: the ratio of MACs at equal utilisation.

    LLaVA-1.5-7B, LoRA, 150 text tokens, 576 -> 64 visual tokens: 3.3. A claim above it is an accounting error.
    """
    steps = [
        shape.training_step(text_tokens, training=training, activation_checkpointing=activation_checkpointing).total
        for shape in (full, compressed)
    ]
    return steps[0] / steps[1]


def prefill_speedup_limit(
    full: ModelShape,
    cheaper: ModelShape,
    text_tokens: int,
    pruning: PruningConfig | None = None,
    training_free: Method | None = None,
) -> float:
    """How many times sooner the first token can come at most: the ratio of MACs at equal utilisation, one image.

    LLaVA-1.5-7B, 150 text tokens, 576 -> 64 visual tokens: 3.17 by a compressor, 2.78 by pruning from layer 2 on.
    """
    return full.prefill(text_tokens).total / cheaper.prefill(text_tokens, 1, pruning, training_free).total
