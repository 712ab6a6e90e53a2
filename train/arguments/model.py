"""The keys that name the base model, its compressor and its adapter."""

import difflib
import functools
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig
from transformers.utils import is_bitsandbytes_available, is_flash_attn_2_available

from crop_model.compressor import COMPRESSOR_TYPES
from crop_model.configuration_crop_llava import COMPRESSOR_KEYS
from crop_model.regions import FRAMES
from data_prep.common.errors import ConfigError
from data_prep.common.fill import Checked, fields_of, fill, key, leaves, refuse


@dataclass
class ModelArguments(Checked):
    """Choose the base model, the compressor put into it, and the adapter trained on it.

    A key of compressor or processor that is null keeps the checkpoint's value or, for a plain LLaVA, the default of
    `CropLlavaConfig` and `CropLlavaProcessor`.
    """

    model: str = field(
        metadata={"help": "The folder or Hub name of a LLaVA in llava-hf format, or of a checkpoint of this project."}
    )
    compressor_type: str | None = key(None, "The way visual tokens are compressed.", choices=COMPRESSOR_TYPES)
    token_budget: int | None = key(None, "The number of visual tokens per image that the language model reads.")
    region_ratio: float | None = key(
        None, "The retention ratio inside the region divided by that outside of it; above 1."
    )
    compressor_num_attention_heads: int | None = key(
        None, "The number of heads of the compressor's attention; it divides the vision tower's width."
    )
    frame: str | None = key(None, "The way an image becomes the model's square input.", choices=FRAMES)
    region_grid: list[int] | None = key(
        None, "The rows and columns to whose cells a region is widened, CROP's 8x8; []: exact to the patch."
    )
    region_scale: float | None = key(
        None, "The factor by which every region grows about its centre, in pixels, before it is widened to the grid."
    )
    region_min_side: float | None = key(None, "The smallest side of a region, as a fraction of the image's side.")
    chat_template: str | None = key(
        None,
        "A Jinja file that replaces the model's chat template. Answers must stand between {% generation %} and "
        "{% endgeneration %}: the loss reads these spans.",
    )
    lora: dict[str, Any] | None = key(
        None,
        "The keywords of peft.LoraConfig as a mapping; target_modules defaults to the language model's linear layers. "
        "null: the language model stays frozen, only compressor and projector train.",
    )
    attn_implementation: str = key(
        "sdpa",
        "The attention of the language model and the vision tower; flash_attention_2 needs flash-attn.",
        choices=["sdpa", "eager", "flash_attention_2"],
        renamed_from="attention",
    )
    load_in_4bit: bool = key(
        False,
        "Whether the language model's weights are loaded in NF4, under LoRA (QLoRA); needs bitsandbytes.",
        renamed_from="quantization",
        former_values=(("4bit", True), (None, False)),
    )

    def mistakes(self) -> Iterator[str]:
        if self.attn_implementation == "flash_attention_2" and not is_flash_attn_2_available():
            yield "attn_implementation: flash_attention_2 needs flash-attn and a GPU for it; sdpa needs neither"
        if self.load_in_4bit and not is_bitsandbytes_available():
            yield "load_in_4bit: needs bitsandbytes: pip install bitsandbytes"
        if self.load_in_4bit and self.lora is None:
            yield "load_in_4bit: needs lora: weights in 4 bits do not train"
        if self.region_grid and (len(self.region_grid) != 2 or min(self.region_grid) < 1):
            yield f"region_grid: expected rows and columns, got {self.region_grid}"
        if self.chat_template is not None and not Path(self.chat_template).is_file():
            yield f"chat_template: no such file: {self.chat_template}"
        try:
            self.lora_config()
        except ConfigError as error:
            yield from str(error).splitlines()

    def compressor(self) -> dict[str, Any]:
        """Return the compressor's keys that are set, as the model's `from_pretrained` takes them."""
        return self._given(COMPRESSOR_KEYS)

    def processor(self) -> dict[str, Any]:
        """Return the processor's own keys that are set, as its `from_pretrained` takes them."""
        given = self._given(("frame", "region_grid", "region_scale", "region_min_side"))
        return given | ({"region_grid": None} if self.region_grid == [] else {})

    def _given(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def loading(self) -> dict[str, Any]:
        """Return the options that say how the weights are loaded, as the model's `from_pretrained` takes them."""
        options: dict[str, Any] = {"attn_implementation": self.attn_implementation}
        if self.load_in_4bit:
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.bfloat16,
                llm_int8_skip_modules=[r"(?!.*language_model).*"],  # matched from the start of a module's name
            )
        return options

    def lora_config(self, target_modules: str | None = None) -> LoraConfig | None:
        """Make the adapter's configuration, or return None if no adapter is trained.

        Args:
            target_modules: the backbone's, unless `lora` names others.

        Raises:
            ConfigError: a keyword or a value that PEFT refuses.
        """
        if self.lora is None:
            return None
        keywords = [field.name for field in fields_of(LoraConfig)]
        known = {name: value for name, value in self.lora.items() if name in keywords}
        values, wrong = fill(_lora_keywords(), known, set())
        for name in [name for name in self.lora if name not in known]:
            close = difflib.get_close_matches(str(name), keywords, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else f", none of {keywords}"
            wrong.append((str(name), f"unknown key{hint}"))
        refuse(f"lora.{path}: {text}" for path, text in wrong)
        if "modules_to_save" in self.lora:
            raise ConfigError("lora: modules_to_save is not free: compressor and projector train beside the adapter")
        try:
            return LoraConfig(**{"target_modules": target_modules, **{name: getattr(values, name) for name in known}})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"lora: {error}") from None


class _LoraRanges(Checked):
    """Check the ranges that PEFT checks late, when it puts the adapter into the loaded model."""

    r: Any
    lora_alpha: float | None
    lora_dropout: float | None
    rank_pattern: dict[str, Any] | None

    def mistakes(self) -> Iterator[str]:
        ranks = [("r", self.r), *(("rank_pattern", rank) for rank in (self.rank_pattern or {}).values())]
        for name, rank in ranks:
            if type(rank) is not int or rank < 1:
                yield f"{name}: expected a whole number above 0, got {rank!r}"
        if self.lora_alpha is not None and not 0 < self.lora_alpha < float("inf"):
            yield f"lora_alpha: expected a number above 0, got {self.lora_alpha}"
        if self.lora_dropout is not None and not 0 <= self.lora_dropout < 1:
            yield f"lora_dropout: expected a number from 0 to below 1, got {self.lora_dropout}"


@functools.cache
def _lora_keywords() -> type:
    """Make a dataclass of LoraConfig's keywords, each of its type if that is made of plain ones, else of any."""
    plain = {int, float, bool, str, list, tuple, dict, type(None), typing.Union, types.UnionType}
    hints = typing.get_type_hints(LoraConfig)
    accepted = {field.name: hints[field.name] for field in fields_of(LoraConfig)}
    # r: one message for type and range; PEFT takes fractions of alpha
    accepted |= {"r": Any, "lora_alpha": int | float}
    fields = []
    for name, hint in accepted.items():
        is_plain = leaves(hint) <= plain or typing.get_origin(hint) is typing.Literal
        fields.append((name, hint if is_plain else Any, LoraConfig.r if name == "r" else None))
    return make_dataclass("LoraKeywords", fields, bases=(_LoraRanges,))
