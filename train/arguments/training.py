"""The keys that say how a model is trained."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.utils import is_liger_kernel_available

from data_prep.common.command_line import refuse
from data_prep.common.errors import ConfigError

from .region_augmentation import RegionNoiseArguments

# the folder as a command in the root of a clone names it, which a run's configuration then keeps; else the clone's own
DEEPSPEED_PRESETS = (Path("configs/deepspeed"), Path(__file__).parents[2] / "configs" / "deepspeed")


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

    def mistakes(self) -> Iterator[str]:
        """Yield a line for each mistake, which begins with the key."""
        yield from self.region_mistakes()
        if self.localizer_regions and not self.split_turns:
            yield "localizer_regions: predictions are of single questions; split_turns must be true"
        if not 0 <= self.max_bad_fraction <= 1:
            yield f"max_bad_fraction: expected a share from 0 to 1, got {self.max_bad_fraction}"
        if self.remove_unused_columns:
            yield "remove_unused_columns: must stay false: the collator reads the samples whole"
        if self.use_liger_kernel and not is_liger_kernel_available():
            yield "use_liger_kernel: needs liger-kernel: pip install liger-kernel"
        if self.save_on_each_node:
            yield "save_on_each_node: must stay false: every node has to see the same output_dir"
        if self.save_only_model:
            yield "save_only_model: must stay false: a checkpoint is to resume from; `final` is the model alone"
        if self.push_to_hub and self.hub_strategy in ("checkpoint", "all_checkpoints"):
            yield f"hub_strategy: {self.hub_strategy} would send checkpoints while they are being renamed"
        if self.hub_token is not None:
            yield "hub_token: not read from a configuration, where it would be stored; use `hf auth login`"

    def __post_init__(self) -> None:
        refuse([*self._find_deepspeed(), *self.mistakes()])
        if not torch.accelerator.is_available():
            self.use_cpu = True
        super().__post_init__()

    def _find_deepspeed(self) -> Iterator[str]:
        """Replace the name of a preset by its file; yield a line if there is none, or no launcher."""
        try:
            if isinstance(given := self.deepspeed, str) and not given.startswith("{"):
                self.deepspeed: Any = deepspeed_config(given)
        except ConfigError as error:
            yield str(error)
            return
        if self.deepspeed and "LOCAL_RANK" not in os.environ:
            yield "deepspeed: start under its launcher: deepspeed --num_gpus N --module train.plc ..."


def deepspeed_config(name: str) -> str:
    """Find the file of a DeepSpeed configuration.

    Args:
        name: a path, or the bare name of a preset in `configs/deepspeed`, such as zero2.

    Raises:
        ConfigError: no such file or preset.
    """
    if not re.fullmatch(r"[\w-]+", name):
        if not Path(name).is_file():
            raise ConfigError(f"deepspeed: no such file: {name}")
        return name
    folder = next((folder for folder in DEEPSPEED_PRESETS if folder.is_dir()), None)
    if folder is None:
        raise ConfigError(
            f"deepspeed: {name}: presets lie in configs/deepspeed of a clone of this project, which is not there; "
            "give the path of a file"
        )
    presets = sorted(path.stem for path in folder.glob("*.json"))
    if name not in presets:
        raise ConfigError(f"deepspeed: {name!r} is none of the presets {', '.join(presets)}, and no file")
    return str(folder / f"{name}.json")
