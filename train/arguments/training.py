"""The keys that set how a model is trained."""

import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.utils import is_liger_kernel_available

from data_prep.common.errors import ConfigError
from data_prep.common.fill import Checked, key, refuse
from train.data.region_augmentation import RegionNoise

# the folder as a command in the root of a clone names it, which a run's configuration then keeps; else the clone's own
DEEPSPEED_PRESETS = (Path("configs/deepspeed"), Path(__file__).parents[2] / "configs" / "deepspeed")

# (what a message calls a range, its test, its keys) of numbers that transformers and torch refuse late or without a key
_RANGES: tuple[tuple[str, Callable[[float], bool], tuple[str, ...]], ...] = (
    (
        "a number above 0",
        lambda number: 0 < number < math.inf,
        (
            *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
            *("num_train_epochs", "eval_accumulation_steps", "torch_empty_cache_steps", "dataloader_prefetch_factor"),
            *("ddp_timeout", "pack_length"),
        ),
    ),
    (
        "a number of at least 0",
        lambda number: 0 <= number < math.inf,
        (
            *("learning_rate", "compressor_learning_rate", "projector_learning_rate", "warmup_steps", "weight_decay"),
            *("adam_epsilon", "neftune_noise_alpha", "eval_delay", "dataloader_num_workers", "profile_steps"),
            "picture_steps",
        ),
    ),
    ("a number from 0 to below 1", lambda number: 0 <= number < 1, ("adam_beta1", "adam_beta2")),
    ("a share from 0 to 1", lambda number: 0 <= number <= 1, ("max_bad_fraction", "label_smoothing_factor")),
    ("a number from 0 to below 2**32", lambda number: 0 <= number < 2**32, ("seed", "data_seed")),  # as numpy takes
)


@dataclass
class PlcTrainingArguments(TrainingArguments, Checked):
    """Extend `TrainingArguments` by one learning rate per module group; `learning_rate` is LoRA's."""

    output_dir: str = field(
        metadata={"help": "The run's folder, for config.yaml, train_log.jsonl, checkpoints and final."}
    )
    compressor_learning_rate: float = key(1e-4, "The peak learning rate of the compressor.")
    projector_learning_rate: float = key(
        2e-5, "The peak learning rate of the multi-modal projector; 0: it stays frozen."
    )
    region_jitter: float = key(
        0.0,
        "A number below 1. In every epoch anew, boxes of train_data are scaled by up to 1 + this number, and each side "
        "moves by up to half of it times the box's side. 0: as annotated.",
    )
    localizer_regions: list[str] = key(
        list, "The sidecars of the localizer's own predictions for train_data (data_prep.localize rows=all)."
    )
    localizer_probability: float = key(
        0.0, "The probability that a sample is shown with the region that the localizer predicted."
    )
    global_probability: float = key(0.0, "The probability that a sample is shown without a region, as the whole image.")
    pack_length: int | None = key(
        None,
        "The number of tokens of a row into which samples are packed, at least max_length; the batch size then counts "
        "rows. null: a row is a sample, padded.",
    )
    split_turns: bool = key(
        True,
        "Whether each question about an image of train_data is a sample with a region of its own. false: a "
        "conversation is one sample, its region the union of its questions' (none, if one of them has none).",
    )
    on_bad_sample: str = key(
        "raise",
        "What happens to a sample that cannot be used: raise ends the run, skip leaves the sample out and lists it in "
        "quarantine.jsonl.",
        choices=("raise", "skip"),
    )
    max_bad_fraction: float = key(0.01, "With on_bad_sample: skip, the share of bad samples above which a run ends.")
    profile_steps: int = key(0, "The number of steps that torch.profiler records into output_dir/profile; 0: none.")
    compile_modules: bool = key(
        False,
        "Whether torch.compile compiles the compressor and the language model, each by itself. The first steps take "
        "minutes; shapes are dynamic, as lengths vary.",
    )
    picture_steps: int = key(
        0, "The number of steps after which four evaluation samples are drawn into TensorBoard; 0: never."
    )
    resume_from_checkpoint: str | None = key(
        None,
        "The checkpoint folder to resume from; last: the newest whole one of output_dir; auto: as last if there is "
        "one, else from the start.",
    )
    resume_with_changes: bool = key(
        False, "Whether a run resumes although its data or configuration differ from the checkpoint's."
    )
    report_to: list[str] = key(lambda: ["tensorboard"], "Where scalars go besides train_log.jsonl; none for nowhere.")
    train_sampling_strategy: str = key(
        "group_by_length",
        "The order of the samples: group_by_length puts samples of similar length into a batch, which keeps padding "
        "low; or random, or sequential.",
    )
    remove_unused_columns: bool = key(False, "Must stay false: the collator reads the samples whole.")
    logging_steps: float = key(10, "The number of steps between two lines of the log.")
    logging_nan_inf_filter: bool = key(False, "Whether non-finite losses are hidden from the log.")

    def mistakes(self) -> Iterator[str]:
        """Yield a line for each mistake, which begins with the key."""
        yield from self._region_mistakes()
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
        yield from self._output_mistakes()
        yield from self._number_mistakes()

    def _output_mistakes(self) -> Iterator[str]:
        folder = Path(self.output_dir).expanduser()
        nearest = next((path for path in (folder, *folder.parents) if path.exists()), None)
        if nearest is not None and not nearest.is_dir():
            yield f"output_dir: {nearest} is a file, not a folder"

    def _number_mistakes(self) -> Iterator[str]:
        for text, fits, names in _RANGES:
            numbers = {name: number for name in names if (number := getattr(self, name)) is not None}
            yield from (f"{name}: expected {text}, got {x}" for name, x in numbers.items() if not fits(x))
        if self.max_steps != -1 and self.max_steps < 1:
            yield f"max_steps: expected a whole number above 0, or -1 for num_train_epochs, got {self.max_steps}"
        for name in ("logging", "eval", "save"):
            steps = getattr(self, f"{name}_steps")
            is_interval = steps is None or 0 < steps < 1 or (steps >= 1 and float(steps).is_integer())
            if getattr(self, f"{name}_strategy") == "steps" and not is_interval:
                yield f"{name}_steps: expected a whole number above 0, or a share of all steps below 1, got {steps}"

    def _region_mistakes(self) -> Iterator[str]:
        try:
            self.region_noise()
        except ConfigError as error:
            yield str(error)
        yield from (f"localizer_regions: no such folder: {x}" for x in self.localizer_regions if not Path(x).is_dir())
        if self.localizer_regions and not self.localizer_probability:
            yield "localizer_regions: goes together with localizer_probability"
        if self.localizer_probability and not self.localizer_regions:
            yield "localizer_probability: goes together with localizer_regions"
        if self.localizer_regions and not self.split_turns:
            yield "localizer_regions: predictions are of single questions; split_turns must be true"

    def __post_init__(self) -> None:
        refuse([*self._find_deepspeed(), *self.mistakes()])
        if not torch.accelerator.is_available():
            self.use_cpu = True
        super().__post_init__()

    def region_noise(self) -> RegionNoise:
        """Return how training draws its regions."""
        seed = self.seed if self.data_seed is None else self.data_seed
        return RegionNoise(seed, self.region_jitter, self.localizer_probability, self.global_probability)

    def _find_deepspeed(self) -> Iterator[str]:
        """Replace the name of a preset by its file; yield a line if there is none, or no launcher."""
        try:
            if isinstance(given := self.deepspeed, str) and not given.startswith("{"):
                self.deepspeed: Any = deepspeed_config(given)
        except ConfigError as error:
            yield str(error)
            return
        if self.deepspeed and "LOCAL_RANK" not in os.environ:
            yield (
                "deepspeed: start it by ./launch/train.sh CONFIG.yaml (MODULE=train.localizer for a localizer), or set "
                "deepspeed=null for one process"
            )


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
