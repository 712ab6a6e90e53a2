"""The keys of a training configuration: what model, on what data, trained how.

Evaluation shares `DataArguments`. Mappings inside the YAML file (`lora`, the items of `train_data`) arrive as JSON
text, the way transformers' `TrainingArguments` takes its own, and are parsed and checked in `__post_init__`.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import BitsAndBytesConfig, TrainingArguments
from transformers.utils import is_bitsandbytes_available, is_flash_attn_2_available, is_liger_kernel_available

from crop_model.compressor import COMPRESSOR_TYPES
from crop_model.configuration_crop_llava import COMPRESSOR_KEYS
from crop_model.processing_crop_llava import FRAMES
from data_prep.config import ConfigError
from data_prep.data_source import DataSource

from .region_noise import RegionNoiseArguments

# The language model's linear layers and no others: a bare `q_proj` would match the vision tower's too.
LANGUAGE_MODEL_LINEARS = r".*language_model\.layers\.\d+\.(self_attn|mlp)\..*_proj"


@dataclass
class ModelArguments:
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
    lora: dict | str | None = field(
        default=None,
        metadata={
            "help": "peft.LoraConfig's keywords as a mapping; target_modules is the language model's linear layers "
            "unless given. null: the language model stays frozen, only compressor and projector train."
        },
    )

    attention: str = field(
        default="sdpa",
        metadata={
            "help": "Attention of the language model and the vision tower; flash_attention_2 where flash-attn is "
            "installed.",
            "choices": ["sdpa", "eager", "flash_attention_2"],
        },
    )
    quantization: str | None = field(
        default=None,
        metadata={
            "help": "4bit: QLoRA, the language model's weights in NF4 under LoRA; where bitsandbytes is installed.",
            "choices": ["4bit"],
        },
    )

    def __post_init__(self) -> None:
        if isinstance(self.lora, str):
            self.lora = _load_mapping(self.lora, "lora")
        if self.attention == "flash_attention_2" and not is_flash_attn_2_available():
            raise ConfigError(
                "attention: flash_attention_2 needs flash-attn and a GPU that it runs on; sdpa needs neither"
            )
        if self.quantization is not None and not is_bitsandbytes_available():
            raise ConfigError("quantization: 4bit needs bitsandbytes: pip install bitsandbytes")
        if self.quantization is not None and self.lora is None:
            raise ConfigError("quantization: 4bit needs lora: weights in 4 bits do not train")
        if self.region_grid and (len(self.region_grid) != 2 or min(self.region_grid) < 1):
            raise ConfigError(f"region_grid: expected rows and columns, got {self.region_grid}")
        if self.chat_template is not None and not Path(self.chat_template).is_file():
            raise ConfigError(f"chat_template: no such file: {self.chat_template}")
        self.lora_config()

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
        options: dict[str, Any] = {"attn_implementation": self.attention}
        if self.quantization == "4bit":
            options["quantization_config"] = BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.bfloat16,
                llm_int8_skip_modules=[r"(?!.*language_model).*"],  # matched from the start of a module's name
            )
        return options

    def lora_config(self) -> LoraConfig | None:
        """The adapter's configuration, or None. ConfigError on a keyword or a value that PEFT refuses."""
        if not isinstance(self.lora, dict):
            return None
        if "modules_to_save" in self.lora:
            raise ConfigError("lora: modules_to_save is not free: compressor and projector train beside the adapter")
        try:
            return LoraConfig(**{"target_modules": LANGUAGE_MODEL_LINEARS, **self.lora})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"lora: {error}") from None


@dataclass
class DataArguments:
    """The samples, and how they are read."""

    eval_data: list[DataSource] = field(
        default_factory=list, metadata={"help": "As train_data; held out, for the evaluation during training."}
    )
    train_data: list[DataSource] = field(
        default_factory=list,
        metadata={"help": "List of {annotations, image_root, regions, weight}; the last two may be left out."},
    )
    max_length: int = field(
        default=2048,
        metadata={
            "help": "Longest sample in tokens, visual tokens included. A longer one is an error: nothing is truncated."
        },
    )
    max_image_pixels: int = field(
        default=89_478_485,
        metadata={"help": "Larger images are refused before they are decoded (Pillow's own warning limit)."},
    )


@dataclass
class PlcTrainingArguments(RegionNoiseArguments, TrainingArguments):
    """transformers' `TrainingArguments` with one learning rate a module group; `learning_rate` is LoRA's."""

    output_dir: str = field(metadata={"help": "The run's folder: config.yaml, train_log.jsonl, checkpoints, final."})
    compressor_learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate of the compressor."})
    projector_learning_rate: float = field(
        default=2e-5, metadata={"help": "Peak learning rate of the multi-modal projector; 0: it stays frozen."}
    )
    pack_length: int | None = field(
        default=None,
        metadata={
            "help": "Pack samples into rows of at most so many tokens, no fewer than max_length; the batch size then "
            "counts rows. null: a row is a sample, padded."
        },
    )
    split_turns: bool = field(
        default=True,
        metadata={
            "help": "Each question about an image of train_data is a sample with a region of its own. false: a "
            "conversation is one sample, its region the union of its questions' (none, if one of them has none)."
        },
    )
    on_bad_sample: str = field(
        default="raise",
        metadata={
            "help": "A sample that cannot be used ends the run, or is left out and told in quarantine.jsonl.",
            "choices": ("raise", "skip"),
        },
    )
    max_bad_fraction: float = field(
        default=0.01, metadata={"help": "With on_bad_sample: skip, a run ends above this share of bad samples."}
    )
    profile_steps: int = field(
        default=0, metadata={"help": "Record so many steps with torch.profiler, into output_dir/profile; 0: none."}
    )
    compile_modules: bool = field(
        default=False,
        metadata={
            "help": "torch.compile the compressor and the language model, each in its place. The first steps take "
            "minutes; shapes are dynamic, as lengths vary."
        },
    )
    picture_steps: int = field(
        default=0, metadata={"help": "Every so many steps, draw four evaluation samples into TensorBoard; 0: never."}
    )
    resume_from_checkpoint: str | None = field(
        default=None,
        metadata={
            "help": "Checkpoint folder to go on from, or last: the newest whole one of output_dir, or auto: last where "
            "there is one, else from the start."
        },
    )
    resume_with_changes: bool = field(
        default=False,
        metadata={
            "help": "Go on from a checkpoint although data or configuration are not those that it was made with."
        },
    )
    report_to: list[str] = field(
        default_factory=lambda: ["tensorboard"],
        metadata={"help": "Where scalars go besides train_log.jsonl; none for nowhere."},
    )
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={"help": "Samples of like length share a batch, which keeps padding low. Or: random, sequential."},
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Must stay false: the collator reads the samples whole."}
    )
    logging_steps: float = field(default=10, metadata={"help": "Log every so many steps."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide non-finite losses from the log."})

    def __post_init__(self) -> None:
        self.check_region_noise()
        if self.localizer_regions and not self.split_turns:
            raise ConfigError("localizer_regions: predictions are of single questions; split_turns must be true")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ConfigError(f"max_bad_fraction: expected a share from 0 to 1, got {self.max_bad_fraction}")
        if self.remove_unused_columns:
            raise ConfigError("remove_unused_columns: must stay false: the collator reads the samples whole")
        if self.use_liger_kernel and not is_liger_kernel_available():
            raise ConfigError("use_liger_kernel: needs liger-kernel: pip install liger-kernel")
        if self.save_on_each_node:
            raise ConfigError("save_on_each_node: must stay false: every node has to see the same output_dir")
        if self.save_only_model:
            raise ConfigError(
                "save_only_model: must stay false: a checkpoint is to go on from; `final` is the model alone"
            )
        if self.push_to_hub and self.hub_strategy in ("checkpoint", "all_checkpoints"):
            raise ConfigError(f"hub_strategy: {self.hub_strategy} would send checkpoints while they are being renamed")
        if self.hub_token is not None:
            raise ConfigError("hub_token: not read from a configuration, where it would be stored; use `hf auth login`")
        self._check_deepspeed()
        if not torch.accelerator.is_available():
            self.use_cpu = True
        super().__post_init__()

    def _check_deepspeed(self) -> None:
        named = isinstance(self.deepspeed, str) and not self.deepspeed.startswith("{")
        if named and not Path(self.deepspeed).is_file():
            raise ConfigError(f"deepspeed: no such file: {self.deepspeed}")
        if self.deepspeed and "LOCAL_RANK" not in os.environ:
            raise ConfigError("deepspeed: start under its launcher: deepspeed --num_gpus N --module train.plc ...")


def _load_mapping(text: str, key: str) -> dict[str, Any]:
    try:
        mapping = json.loads(text)
    except json.JSONDecodeError:
        mapping = None
    if not isinstance(mapping, dict):
        raise ConfigError(f"{key}: expected a mapping, got {text!r}")
    return mapping
