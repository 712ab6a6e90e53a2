"""Open a checkpoint by its name once, and load from it whatever is needed.

Three kinds of folder or Hub name are understood: a published base model, a whole model of this project, and an adapter
(PEFT) that names its base and has compressor and projector beside it. This module lies above `train.checkpoints`
because it chooses among the backbones.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import set_seed
from transformers.integrations import is_deepspeed_zero3_enabled

from data_prep.common.errors import ConfigError
from train.checkpoints.loading import load_model, named, read_adapter, read_config
from train.checkpoints.zero_weights import with_weights

from . import BACKBONES
from .base import LANGUAGE_MODEL, Backbone


@dataclass(frozen=True)
class Checkpoint:
    """Open a model on disk or on the Hub.

    Args:
        name: folder or Hub name.
        backbone: the family of the model.
        config: the model's configuration, with the overrides given to `open`.
        adapter: the stored adapter's configuration; None: whole weights.
        is_trained: whether it has the model type that this project writes, not that of a base model.
    """

    name: str
    backbone: Backbone
    config: Any
    adapter: PeftConfig | None
    is_trained: bool

    @classmethod
    def open(
        cls, name: str | Path, *others: Mapping[str, Any], needs_compressor: bool = False, **overrides: Any
    ) -> "Checkpoint":
        """Read config.json and adapter_config.json.

        Args:
            name: folder or Hub name.
            others: keys by value of a configuration that the family has to read, too.
            needs_compressor: refuse a family without one.
            overrides: keys of the compressor that replace the stored ones, such as token_budget=28.

        Raises:
            ConfigError: nothing loadable under that name, a model type of no backbone, keys that it does not read, or
                overrides that do not fit the model.
        """
        stored = read_config(name)
        model_type = stored.get("model_type")
        if model_type is not None and model_type not in BACKBONES:
            raise ConfigError(f"model {name}: a model of type {model_type!r} is none of {', '.join(BACKBONES)}")
        if model_type is None or "vision_config" not in stored:  # an adapter of another program has no such file
            raise ConfigError(f"model {name}: no config.json with the model's type and sizes")
        backbone = BACKBONES[model_type]
        if needs_compressor and not backbone.compresses:
            compressing = ", ".join(known for known, family in BACKBONES.items() if family.compresses)
            raise ConfigError(
                f"model {name}: a model of type {model_type!r} has no compressor; one of {compressing} has"
            )
        backbone.check_keys(overrides, *others)
        own_type = backbone.model_types[0]
        config = named(name, lambda _: backbone.read_config({**stored, "model_type": own_type}, **overrides))
        return cls(str(name), backbone, config, read_adapter(name), backbone.writes(model_type))

    def processor(self, **options: Any) -> Any:
        """Load the processor for the configured token budget.

        Args:
            options: the processor's own keys that replace the stored ones.

        Raises:
            ConfigError: no processor under the name, or options that do not fit it.
        """
        budget = {"token_budget": self.config.token_budget} if self.backbone.compresses else {}
        return named(self.name, self.backbone.processor_class.from_pretrained, **budget, **options)

    def model(
        self, dtype: torch.dtype | str = torch.float32, device: torch.device | str = "cpu", **loading: Any
    ) -> Any:
        """Load the model in eval mode: a `PeftModel` if there is an adapter, else a plain model.

        Args:
            dtype: of the weights; "auto": as stored.
            device: where the model is put.
            loading: other options of `from_pretrained`, which apply to the base of an adapter.

        Raises:
            ConfigError: weights that do not load, or a base other than the adapter was trained on.
        """
        return self._load(dtype, **loading).eval().to(device)

    def merged(self, dtype: torch.dtype | str = torch.float32, device: torch.device | str = "cpu") -> Any:
        """Load as `model` does, and merge an adapter into its base."""
        model = self.model(dtype)
        return (model.merge_and_unload() if isinstance(model, PeftModel) else model).to(device)

    def trainable(
        self,
        groups: Iterable[str],
        lora: LoraConfig | None,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        **loading: Any,
    ) -> Any:
        """Load a model of which some module groups and a new adapter train, and nothing else.

        Args:
            groups: of `Backbone.modules`, or language_model. Groups without weights are passed over.
            lora: the adapter; its `modules_to_save` become the groups, so that PEFT's checkpoints hold them.
            dtype: of the weights.
            seed: draws what is new, compressor and adapter, whatever else draws random numbers while loading.
            loading: other options of `from_pretrained`: attn_implementation, quantization_config.

        Raises:
            ConfigError: as `model`, or an adapter under ZeRO-3, whose spread weights cannot be merged.
        """
        if is_deepspeed_zero3_enabled() and self.adapter is not None:
            raise ConfigError(
                f"model {self.name}: ZeRO-3 cannot start from an adapter; export it, or take another preset"
            )
        set_seed(seed)
        model = self._load(dtype, **loading)
        if isinstance(model, PeftModel):  # the new adapter goes on top of it
            model = model.merge_and_unload()
            model.name_or_path = self.name
        model.requires_grad_(False)
        names = [self.backbone.modules[group] for group in groups if group in self.backbone.modules]
        modules = {name: model.model.get_submodule(name) for name in names}
        if "language_model" in groups:
            modules |= {name: model.get_submodule(name) for name in LANGUAGE_MODEL}
        trained = {name: module for name, module in modules.items() if next(module.parameters(), None) is not None}
        if lora is None:
            for module in trained.values():
                module.requires_grad_(True)
            return model
        lora.modules_to_save = list(trained)
        set_seed(seed)
        # ZeRO-3 needs the adapter in the model's own dtype; whoever wants fp32 casts afterwards
        return get_peft_model(model, lora, autocast_adapter_dtype=False)

    def with_weights(self, folder: Path) -> "Checkpoint":
        """Return this checkpoint, or `folder` with its weights: see `zero_weights.with_weights`."""
        return dataclasses.replace(self, name=with_weights(self.name, folder, self.backbone.model_class))

    def _load(self, dtype: torch.dtype | str, **loading: Any) -> Any:
        # without a compressor the base of an adapter keeps its own configuration, and with it its own dtype
        options = {"config": self.config} if self.backbone.compresses else {}
        return load_model(self.name, self.adapter, self.backbone.model_class, dtype, **options, **loading)
