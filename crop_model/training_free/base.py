"""Define what training-free methods share: a name, the keys that they read of an evaluation's row, a cost, a call."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

from crop_model.configuration_crop_llava import CropLlavaConfig
from crop_model.cost.model import ModelShape
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration

from .inside_llm import PruningConfig


@dataclass(frozen=True)
class TrainingFreeMethod:
    """Leave the model as it is. A method overrides what it changes; its fields are the keys of a row that it reads."""

    name: ClassVar[str]  # what `method` of a row calls it
    reads_region: ClassVar[bool] = True  # whether the tokens depend on the question's region
    replaces: ClassVar[str | None] = None  # the compressor type whose tokens it replaces; None: it acts beside any

    @classmethod
    def row_keys(cls) -> dict[str, bool]:
        """Return the keys of a row that the method reads, and whether one must be given: a field without a default."""
        return {field.name: field.default is MISSING for field in fields(cls) if field.init}

    @classmethod
    def check_key(cls, key: str, value: Any) -> None:
        """Refuse a wrong value of one of `row_keys` by a ValueError that starts with the key."""

    def label(self, config: CropLlavaConfig) -> str:
        """Return what tables call a model of this configuration with the method."""
        return config.compressor_type

    def pruning(self, config: CropLlavaConfig) -> PruningConfig | None:
        """Return what is pruned inside the LLM. ValueError if the model cannot be pruned so."""
        return None

    def macs(self, shape: ModelShape) -> int:
        """Count the multiply-accumulates that the method adds to one image before the LLM."""
        return 0

    def applied(self, model: CropLlavaForConditionalGeneration) -> AbstractContextManager[None]:
        """Apply the method inside the `with` block. ValueError on entry for a model that the method does not fit."""
        return nullcontext()

    def cost(self, config: CropLlavaConfig, text_tokens: int, bytes_per_value: int) -> dict[str, int | float]:
        """Return MACs, KV bytes, and the budget in both conventions, of a prompt with one image, by formula."""
        shape, pruning = ModelShape.from_config(config), self.pruning(config)
        tokens, layers = config.token_budget, config.text_config.num_hidden_layers
        macs = shape.prefill(text_tokens, 1, pruning).total + self.macs(shape)
        return {
            "tokens_after_pruning": tokens if pruning is None else pruning.token_budget,
            "mean_tokens": tokens if pruning is None else pruning.mean_tokens(tokens, layers),
            "macs": macs,
            "flops": 2 * macs,
            "kv_bytes": shape.kv_bytes(text_tokens, 1, bytes_per_value, pruning),
        }
