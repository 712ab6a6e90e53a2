"""Resume a run: find the checkpoint, check that the same run wrote it, and report its position in the data.

resume_from_checkpoint=last | auto | FOLDER ─► checkpoint_to_resume ─► check_identity ─► Trainer ─► ResumeCheck
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import datasets
from accelerate.utils import broadcast_object_list
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import sort_checkpoints

from data_prep.common.command_line import current_names
from data_prep.common.errors import ConfigError, RunError
from train.arguments.data import DataArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.checkpoints.config_file import resolved_config
from train.checkpoints.folders import check_whole, newest_whole, read_manifest
from train.checkpoints.universal import depends_on_processes

# Keys that do not change what a step computes; all others must be unchanged. Batch sizes and accumulation are compared
# by their product over all processes, data by its content, wherever it lies.
FREE_KEYS = {
    *("output_dir", "resume_from_checkpoint", "resume_with_changes", "run_name", "project", "report_to", "push_to_hub"),
    *("disable_tqdm", "debug", "ddp_timeout", "log_level", "log_level_replica", "log_on_each_node", "picture_steps"),
    *("train_data", "eval_data", "localizer_regions", "per_device_train_batch_size", "gradient_accumulation_steps"),
    *("per_device_eval_batch_size", "dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
    *("dataloader_prefetch_factor", "do_eval", "profile_steps"),
    *("on_bad_sample", "max_bad_fraction"),  # the samples that they leave are compared as data
}
FREE_PREFIXES = ("logging_", "save_", "hub_", "trackio_", "eval_")
SAMPLES_AT_ONCE = 10_000


def checkpoint_to_resume(args: PlcTrainingArguments) -> Path | None:
    """Find the checkpoint that `resume_from_checkpoint` means, the same on every process; None: start from scratch.

    `last` is the newest whole one of the output folder; `auto` is the same, or the start if there is none at all. A
    folder that is named must be whole.

    Raises:
        ConfigError: no such checkpoint, a damaged one, or a run from the start that would mix with an earlier run's.
    """
    checkpoint = None
    if args.process_index == 0:  # a single process reads all bytes and reports an error once
        checkpoint = _find(args)
        if checkpoint is not None and args.deepspeed:
            check_processes(checkpoint, args.world_size)
    return broadcast_object_list([checkpoint])[0]


def _find(args: PlcTrainingArguments) -> Path | None:
    run, wanted = Path(args.output_dir), args.resume_from_checkpoint
    present = sort_checkpoints(str(run))
    if wanted is None:
        if present and args.save_strategy != "no":
            raise ConfigError(
                f"output_dir: {present[-1]} is of an earlier run: resume it with resume_from_checkpoint=last, or "
                "remove it, or take another folder"
            )
        return None
    if wanted not in ("last", "auto"):
        check_whole(Path(wanted))
        return Path(wanted)
    if not present:
        if wanted == "last":
            raise ConfigError(f"resume_from_checkpoint: no checkpoint in {run}")
        return None
    folder, problems = newest_whole(run)
    if folder is None:
        raise ConfigError(f"resume_from_checkpoint: no whole checkpoint in {run}: {'; '.join(problems)}")
    for problem in problems:
        tqdm.write(f"WARNING: broken checkpoint {problem}; resuming from {folder}")
    return folder


def check_processes(checkpoint: Path, processes: int) -> None:
    """Raise ConfigError if a checkpoint holds state per process, for another number of processes."""
    written_by = read_manifest(checkpoint)["processes"]
    if depends_on_processes(checkpoint) and written_by != processes:
        raise ConfigError(
            f"resume_from_checkpoint: {checkpoint} is of {written_by} processes, this run has {processes}; "
            f"`python -m train.reshard {checkpoint} OUT` makes of it one for any number, except under ZeRO-3"
        )


# ---- the same run?


def run_identity(
    samples: datasets.Dataset,
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    args: PlcTrainingArguments,
) -> dict[str, Any]:
    """Collect what an exactly resumed run shares with its start: a hash of the `data`, and all but the free keys."""
    values = resolved_config(model_arguments, data_arguments, args)
    config = {key: value for key, value in values.items() if key not in FREE_KEYS and not key.startswith(FREE_PREFIXES)}
    config["global_batch"] = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    return {"data": data_fingerprint(samples), "config": json.loads(json.dumps(config, default=str))}


def data_fingerprint(samples: datasets.Dataset) -> str:
    """Hash the samples' texts, regions and lengths in their order (sha256), whatever folders they lie in.

    The images' content is not read; an image of another name is another sample.
    """
    columns = [name for name in samples.column_names if name not in ("images", "record")]
    digest = hashlib.sha256(json.dumps(columns).encode())
    for batch in samples.select_columns(columns).iter(SAMPLES_AT_ONCE):
        digest.update(json.dumps(batch).encode())
    return digest.hexdigest()


def check_identity(checkpoint: Path, identity: dict[str, Any], with_changes: bool) -> None:
    """Raise ConfigError that names what differs from the run that wrote a checkpoint; print it if that is allowed."""
    stored = read_manifest(checkpoint)["identity"]
    differences = [] if stored["data"] == identity["data"] else ["train_data (other samples)"]
    config = current_names((ModelArguments,), stored["config"])
    for key in sorted({*config, *identity["config"]}):
        before, now = config.get(key), identity["config"].get(key)
        if before != now:
            differences.append(f"{key} (was {before}, is {now})")
    if differences and not with_changes:
        raise ConfigError(
            f"resume_from_checkpoint: {checkpoint} is of another run: {', '.join(differences)}; "
            "resume_with_changes=true resumes all the same"
        )
    if differences:
        print(f"resuming from {checkpoint} with changes: {', '.join(differences)}", flush=True)


class ResumeCheck(TrainerCallback):
    """Report where a run resumes, and stop it if the learning rates' schedule is at another step."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        lr_scheduler: Any = None,
        train_dataloader: DataLoader | None = None,
        **kwargs: Any,
    ) -> None:
        if state.global_step == 0:
            return
        if state.is_world_process_zero and train_dataloader is not None:
            rates = ", ".join(f"{rate:.3g}" for rate in lr_scheduler.get_last_lr())
            epoch, part = divmod(state.epoch or 0, 1)
            batches = len(train_dataloader)
            print(
                f"resuming at step {state.global_step} of {state.max_steps}, rates {rates}, "
                f"data position: epoch {epoch:.0f}, batch {round(part * batches)} of {batches} of each process",
                flush=True,
            )
        if lr_scheduler.last_epoch != state.global_step:
            raise RunError(
                f"the schedule is at step {lr_scheduler.last_epoch}, the run at {state.global_step}: not the same run"
            )
