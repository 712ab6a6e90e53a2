"""Describe what differs between the families of visual-language models.

    config.json ─► model_type ─► BACKBONES ─► Backbone ─► Checkpoint ─► config, processor, model

Everything else in this package is the same for every family. To add one, write a subclass in a file of this folder and
add it to `BACKBONES` in `train/backbones/__init__.py`. A subclass states what its family does differently.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

from crop_model.cost.localizer import LocalizationMacs
from crop_model.cost.model import ModelShape
from data_prep.common.fill import refuse
from train.data.collator import Collator

# A bare `q_proj` would match the vision tower's layers too.
LANGUAGE_MODEL_LINEARS = r".*language_model\.layers\.\d+\.(self_attn|mlp)\..*_proj"
LANGUAGE_MODEL = ("model.language_model", "lm_head")  # the modules of the group language_model, from the model's root


class Backbone:
    """Describe one family of visual-language models.

    Attributes:
        title: the family's name in messages.
        model_types: the `model_type` values of config.json that the family loads. The first one is what it writes.
        model_class: loads the weights; its `config_class` reads config.json.
        processor_class: loads the processor.
        collator: turns samples into batches.
        compresses: whether a compressor stands between vision tower and language model. Such a family reads regions,
            can be trained by train.plc and evaluated, and its export is proven and gets a model card. Every family can
            be a localizer.
        modules: submodules of `model.model` by module group, each group with a learning rate of its own. A parameter
            belongs to the first group whose module it lies in, any other one to `language_model`.
        lora_targets: regular expression of the modules that LoRA adapts unless a configuration names others.
        unread_keys: keys of a training configuration that the family does not read, with the value that each must have.
        auto_classes: classes whose source files an export carries, with the Auto class that finds each. The file of the
            first one marks a folder as an export.
    """

    title: ClassVar[str]
    model_types: ClassVar[tuple[str, ...]]
    model_class: ClassVar[type[PreTrainedModel]]
    processor_class: ClassVar[type[ProcessorMixin]]
    collator: ClassVar[type[Collator]] = Collator
    compresses: ClassVar[bool] = False
    modules: ClassVar[Mapping[str, str]]
    lora_targets: ClassVar[str] = LANGUAGE_MODEL_LINEARS
    unread_keys: ClassVar[Mapping[str, Any]] = {}
    auto_classes: ClassVar[Mapping[type, str]]

    @property
    def export_mark(self) -> str:
        """Return the name of a file that an export of this family always holds."""
        return f"{next(iter(self.auto_classes)).__module__.rpartition('.')[2]}.py"

    @property
    def module_groups(self) -> tuple[str, ...]:
        """Return all module groups, in the order in which a parameter is assigned to one."""
        return ("lora", *self.modules, "language_model")

    def module_group(self, parameter_name: str) -> str:
        """Return the module group of a parameter."""
        if "lora_" in parameter_name:
            return "lora"
        inside = (group for group, module in self.modules.items() if f"{module}." in parameter_name)
        return next(inside, "language_model")

    def vision_tower(self, model: Any) -> nn.Module:
        """Return the vision tower of a model without an adapter."""
        return model.model.get_submodule(self.modules["vision_tower"])

    def writes(self, model_type: str) -> bool:
        """Report whether this project's checkpoints have that model type, not only published base models."""
        return model_type == self.model_types[0]

    def check_keys(self, *values: Mapping[str, Any]) -> None:
        """Refuse keys that the family does not read.

        Args:
            values: mappings of keys to values.

        Raises:
            ConfigError: keys of `unread_keys` have another value than the neutral one.
        """
        refuse(
            f"{key}: not read by a {self.title}; leave it out"
            for key, neutral in self.unread_keys.items()
            if any(given.get(key, neutral) != neutral for given in values)
        )

    def read_config(self, stored: Mapping[str, Any], **overrides: Any) -> Any:
        """Make the model's configuration of what config.json holds.

        Raises:
            ValueError: values that do not fit the model.
        """
        return self.model_class.config_class.from_dict(dict(stored), **overrides)

    def model_shape(self, config: Any) -> ModelShape | None:
        """Return the sizes that the cost formulas need, or None if the family has no formula."""
        return None

    def localizer_macs(self, config: Any, tokenizer: Any, text_tokens: int) -> LocalizationMacs | None:
        """Count the MACs to localize a question of `text_tokens` tokens, or return None if there is no formula."""
        return None

    def save(self, model: PreTrainedModel, processor: Any, folder: Path, **options: Any) -> None:
        """Write a model and its processor so that the Auto classes load them without this project.

        Args:
            model: without an adapter.
            processor: the model's.
            folder: is created if it does not exist.
            options: go to `save_pretrained` of the model.
        """
        for travelling, auto_class in self.auto_classes.items():
            travelling.register_for_auto_class(auto_class)  # type: ignore[attr-defined]
        # transformers knows the weights' published names of its own classes only
        model.save_pretrained(folder, save_original_format=self.model_class not in self.auto_classes, **options)
        # the tokenizer's own library reports a full disk by a bare Exception, Python by an OSError
        if processor.tokenizer.is_fast:
            (folder / "tokenizer.json").write_text(processor.tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
        processor.save_pretrained(folder)
