"""Load each model and each localizer of an evaluation once, for all rows that share it."""

import gc
from collections.abc import Sequence
from typing import Any

import datasets
import torch
from accelerate import PartialState

from crop_model.localization.base import ModelLocalizer
from data_prep.common.errors import ConfigError
from train.backbones.checkpoint import Checkpoint
from train.backbones.localizers import load_localizer
from train.checkpoints.loading import read_config
from train.data.collator import Collator

from .arguments import RowSpec
from .localization import LocatedRow, locate

Key = tuple[Any, ...]


class LoadedModels:
    """Open the checkpoints of all rows at once, and load weights of a dtype on first use, onto this process's device.

    Raises:
        ConfigError: no checkpoint under a row's name, or a compressor or method that does not fit it.
    """

    def __init__(self, specs: Sequence[RowSpec], dtype: torch.dtype) -> None:
        self.dtype = dtype
        self._opened: dict[Key, tuple[Checkpoint, Any]] = {}
        self._models: dict[Key, Any] = {}
        self._localizers: dict[str, ModelLocalizer] = {}
        self._located: dict[str, dict[str, LocatedRow]] = {}  # by localizer, its predictions for every question
        for spec in specs:
            if model_key(spec) not in self._opened:
                checkpoint = Checkpoint.open(spec.checkpoint, needs_compressor=True, **spec.compressor())
                self._opened[model_key(spec)] = checkpoint, checkpoint.processor()
            if spec.localizer is not None:
                read_config(spec.localizer)
            try:
                spec.training_free().pruning(self.opened(spec)[0].config)
            except ValueError as error:
                raise ConfigError(f"rows: {spec.checkpoint}: {error}") from error

    def opened(self, spec: RowSpec) -> tuple[Checkpoint, Any]:
        """Return the row's checkpoint, with its compressor, and its processor."""
        return self._opened[model_key(spec)]

    def model(self, spec: RowSpec) -> Any:
        """Return the row's model."""
        key = model_key(spec)
        if key not in self._models:
            self._models[key] = self.opened(spec)[0].merged(self.dtype, PartialState().device)
        return self._models[key]

    def localizer(self, name: str) -> ModelLocalizer:
        """Return the localizer of that name, on the device until `set_aside`."""
        if name not in self._localizers:
            self._localizers[name] = load_localizer(name, self.dtype, PartialState().device)
        return self._localizers[name].to(PartialState().device)

    def set_aside(self, name: str) -> None:
        """Free the device of a localizer; only the first process, which measures time with it, has it on the CPU."""
        self._localizers[name].to("cpu")
        if not PartialState().is_main_process:
            del self._localizers[name]
            gc.collect()  # a model may refer to itself

    def located(
        self, name: str, samples: datasets.Dataset, collator: Collator, batch_size: int
    ) -> dict[str, LocatedRow]:
        """Return what `locate` returns, called once per localizer, which is set aside afterwards."""
        if name not in self._located:
            self._located[name] = locate(self.localizer(name), samples, collator, batch_size)
            self.set_aside(name)
        return self._located[name]

    def keep_for(self, specs: Sequence[RowSpec]) -> None:
        """Free what none of the remaining rows needs."""
        keys, names = set(map(model_key, specs)), {spec.localizer for spec in specs}
        self._models = {key: model for key, model in self._models.items() if key in keys}
        self._localizers = {name: one for name, one in self._localizers.items() if name in names}
        gc.collect()  # a model may refer to itself


def in_order(specs: Sequence[RowSpec]) -> list[int]:
    """Number the rows in the order to evaluate them: those of one model follow each other."""
    keys = list(map(model_key, specs))
    return sorted(range(len(specs)), key=lambda number: keys.index(keys[number]))


def model_key(spec: RowSpec) -> Key:
    """Return what rows that share a model have in common: checkpoint and compressor."""
    return spec.checkpoint, *sorted(spec.compressor().items())
