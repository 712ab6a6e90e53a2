"""The training-free methods of an evaluation's rows: what each does to the model, what it is called, what it costs.

method      acts                  keys                                                   regions
ilp         inside the LLM        layer, rest, pruned_tokens, convention; any compressor any source
fastv       inside the LLM        layer, pruned_tokens, convention                       global
visionzip   before the LLM        token_budget; in place of a compressor                 global
divprune    before the LLM        token_budget; in place of a compressor                 global
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

from crop_model.configuration_crop_llava import CropLlavaConfig
from crop_model.cost.model import ModelShape
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.training_free.before_llm import Method, training_free
from crop_model.training_free.inside_llm import PruningConfig, Rest, budget_for_mean, prune

Convention = Literal["after_layer", "mean"]
INSIDE_THE_LLM = ("ilp", "fastv")
BEFORE_THE_LLM = get_args(Method)
METHODS = (*INSIDE_THE_LLM, *BEFORE_THE_LLM)


@dataclass(frozen=True)
class MethodSpec:
    """A row's training-free method, or none.

    Args:
        method: one of `METHODS`, or None.
        layer: K, from which on the LLM is pruned.
        rest: what `ilp` keeps outside the region, as in `PruningConfig`.
        pruned_tokens: visual tokens of an image after pruning, counted as `convention` says.
        convention: whether `pruned_tokens` counts those after layer K, or is their mean over all layers.

    Raises:
        ValueError: keys that do not go together, or a value out of its range.
    """

    method: str | None = None
    layer: int = 2
    rest: Rest = "thinned"
    pruned_tokens: int | None = None
    convention: Convention = "after_layer"

    def __post_init__(self) -> None:
        if self.method not in (None, *METHODS):
            raise ValueError(f"method: {self.method!r} is none of {', '.join(METHODS)}")
        for name, known in (("rest", get_args(Rest)), ("convention", get_args(Convention))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name}: {getattr(self, name)!r} is none of {', '.join(known)}")
        if (self.method in INSIDE_THE_LLM) != (self.pruned_tokens is not None):
            raise ValueError("pruned_tokens: it goes with method ilp or fastv, and they with it")
        for name in ("layer", "pruned_tokens"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name}: expected a whole number of at least 1, got {value!r}")

    @property
    def before_the_llm(self) -> Method | None:
        """The method that takes the compressor's place."""
        return next((known for known in BEFORE_THE_LLM if known == self.method), None)

    def pruning(self, config: CropLlavaConfig) -> PruningConfig | None:
        """What is pruned inside the LLM of a model.

        Raises:
            ValueError: a layer that the LLM does not have, more tokens than there are, or a mean that cannot be met.
        """
        if self.pruned_tokens is None:
            return None
        layers = config.text_config.num_hidden_layers
        if self.layer >= layers:
            raise ValueError(f"layer: {self.layer} is outside 1..{layers - 1}, the layers that can be pruned")
        if self.pruned_tokens > config.token_budget:
            raise ValueError(f"pruned_tokens: {self.pruned_tokens} is above {config.token_budget}, all there are")
        after = self.pruned_tokens
        if self.convention == "mean":
            after = budget_for_mean(self.pruned_tokens, self.layer, config.token_budget, layers)
        return PruningConfig(self.layer, after, "attention" if self.method == "fastv" else self.rest)

    def name(self, config: CropLlavaConfig) -> str:
        """What the table calls it: the compressor, and the method with its layer, as in `region_ratio+ilp_thinned_k2`.

        A compressor that does nothing, or whose place the method takes, goes unnamed.
        """
        if self.method is None:
            return config.compressor_type
        if self.before_the_llm is not None:
            return self.method
        pruning = f"ilp_{self.rest}_k{self.layer}" if self.method == "ilp" else f"fastv_k{self.layer}"
        return pruning if config.compressor_type == "none" else f"{config.compressor_type}+{pruning}"

    @contextmanager
    def applied(self, model: CropLlavaForConditionalGeneration) -> Iterator[None]:
        """The model with the method, inside the `with` block."""
        pruning, before = self.pruning(model.config), self.before_the_llm
        with (
            nullcontext() if before is None else training_free(model, before),
            nullcontext() if pruning is None else prune(model, pruning),
        ):
            yield

    def cost(self, config: CropLlavaConfig, text_tokens: int, bytes_per_value: int) -> dict[str, int | float]:
        """MACs, KV bytes, and the budget in both conventions, of a prompt with one image, by formula."""
        shape, pruning = ModelShape.from_config(config), self.pruning(config)
        tokens, layers = config.token_budget, config.text_config.num_hidden_layers
        macs = shape.prefill(text_tokens, 1, pruning, self.before_the_llm).total
        return {
            "tokens_after_pruning": tokens if pruning is None else pruning.token_budget,
            "mean_tokens": tokens if pruning is None else pruning.mean_tokens(tokens, layers),
            "macs": macs,
            "flops": 2 * macs,
            "kv_bytes": shape.kv_bytes(text_tokens, 1, bytes_per_value, pruning),
        }
