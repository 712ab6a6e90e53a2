"""The keys that name the base model, its compressor and its adapter."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig
from transformers.utils import is_bitsandbytes_available, is_flash_attn_2_available

from crop_model.compressor import COMPRESSOR_TYPES
from crop_model.configuration_crop_llava import COMPRESSOR_KEYS
from crop_model.processing_crop_llava import FRAMES
from data_prep.common.command_line import Checked
from data_prep.common.errors import ConfigError


@dataclass
class ModelArguments(Checked):
    """The base model, the compressor put into it, and the adapter trained on it.

    None for a key of compressor or processor: as the checkpoint says, or for a plain LLaVA the default of
    `CropLlavaConfig` and `CropLlavaProcessor`.
    """

    model: str = field(
        metadata={"help": "Folder or Hub name of a LLaVA in llava-hf format, or of a checkpoint of this project."}
    )
    compressor_type: str | None = field(
        default=None, metadata={"help": "How visual tokens are compressed.", "choices": COMPRESSOR_TYPES}
    )
    token_budget: int | None = field(
        default=None, metadata={"help": "Visual tokens an image costs the language model (a count)."}
    )
    region_ratio: float | None = field(
        default=None, metadata={"help": "Retention inside the region over retention outside it, above 1."}
    )
    compressor_num_attention_heads: int | None = field(
        default=None, metadata={"help": "Heads of the compressor's attention; divides the vision width."}
    )
    frame: str | None = field(
        default=None, metadata={"help": "How an image becomes the model's square input.", "choices": FRAMES}
    )
    region_grid: list[int] | None = field(
        default=None,
        metadata={"help": "Rows and columns to whose cells a region is widened, CROP's 8x8; []: exact to the patch."},
    )
    region_scale: float | None = field(
        default=None,
        metadata={"help": "Every region grows by this factor about its centre, in pixels, before it meets the grid."},
    )
    region_min_side: float | None = field(
        default=None, metadata={"help": "Smallest side of a region, as a fraction of the image's side."}
    )
    chat_template: str | None = field(
        default=None,
        metadata={
            "help": "Jinja file that replaces the model's chat template. Answers must stand between {% generation %} "
            "and {% endgeneration %}: these spans are what the loss sees."
        },
    )
    lora: dict[str, Any] | None = field(
        default=None,
        metadata={
            "help": "peft.LoraConfig's keywords as a mapping; target_modules is the language model's linear layers "
            "unless given. null: the language model stays frozen, only compressor and projector train."
        },
    )

    attn_implementation: str = field(
        default="sdpa",
        metadata={
            "help": "Attention of the language model and the vision tower; flash_attention_2 where flash-attn is "
            "installed.",
            "choices": ["sdpa", "eager", "flash_attention_2"],
            "renamed_from": "attention",
        },
    )
    load_in_4bit: bool = field(
        default=False,
        metadata={
            "help": "QLoRA: the language model's weights in NF4 under LoRA; where bitsandbytes is installed.",
            "renamed_from": "quantization",
            "former_values": (("4bit", True), (None, False)),
        },
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
            yield str(error)

    def compressor(self) -> dict[str, Any]:
        """The compressor's keys that are set, as the model's `from_pretrained` takes them."""
        return self._given(COMPRESSOR_KEYS)

    def processor(self) -> dict[str, Any]:
        """The processor's own keys that are set, as its `from_pretrained` takes them; its budget is the model's."""
        given = self._given(("frame", "region_grid", "region_scale", "region_min_side"))
        return given | ({"region_grid": None} if self.region_grid == [] else {})

    def _given(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def loading(self) -> dict[str, Any]:
        """How the weights are loaded, as the model's `from_pretrained` takes it."""
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
        if "modules_to_save" in self.lora:
            raise ConfigError("lora: modules_to_save is not free: compressor and projector train beside the adapter")
        try:
            return LoraConfig(**{"target_modules": target_modules, **self.lora})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"lora: {error}") from None
