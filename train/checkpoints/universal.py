"""Convert checkpoints to DeepSpeed's universal format, which any number of processes resumes from.

ZeRO's files hold each process's part of the optimizer; the universal format holds it by parameter.
"""

import shutil
from argparse import Namespace
from pathlib import Path

from accelerate import Accelerator
from deepspeed.checkpoint import ds_to_universal

from data_prep.common.errors import ConfigError

from .folders import STAGING, check_whole, clear_staging, publish, read_manifest, write_manifest

MARK = "latest_universal"  # DeepSpeed looks here for the folder's name, instead of in `latest`


def convert(checkpoint: Path, out: Path) -> None:
    """Write `out`, whole or not at all; `checkpoint` is not changed.

    Raises:
        ConfigError: `checkpoint` is not whole or not of ZeRO-1 or 2, or `out` exists.
    """
    check_whole(checkpoint)
    if not depends_on_processes(checkpoint):
        raise ConfigError(f"checkpoint: {checkpoint} holds no state by process, so nothing has to be converted")
    if out.exists():
        raise ConfigError(f"out: {out} is there already")
    (parts,) = checkpoint.glob("global_step*")
    if any(parts.glob("zero_pp_rank_*_model_states.pt")):  # seen with DeepSpeed 0.19.8: one group is left after loading
        raise ConfigError(
            f"checkpoint: {checkpoint} is of ZeRO-3, whose learning rates by module the format would lose"
        )
    clear_staging(out.parent)
    staged = out.parent / STAGING / out.name
    shutil.copytree(checkpoint, staged, ignore=shutil.ignore_patterns("rng_state*", "latest", parts.name))
    ds_to_universal.main(
        Namespace(
            input_folder=str(parts),
            output_folder=str(staged / parts.name),
            num_extract_workers=1,
            num_merge_workers=1,
            keep_temp_folder=False,
            strict=True,
            inject_missing_state=True,
        )
    )
    (staged / MARK).write_text(parts.name)
    manifest = read_manifest(checkpoint)
    write_manifest(staged, manifest["step"], 1, manifest["identity"])
    publish(out.parent, out.name)


def is_universal(checkpoint: Path) -> bool:
    """Return whether a checkpoint is in the universal format."""
    return (checkpoint / MARK).is_file()


def depends_on_processes(checkpoint: Path) -> bool:
    """Return whether a checkpoint holds state that is spread over the processes that wrote it."""
    return not is_universal(checkpoint) and any(checkpoint.glob("global_step*/*zero_pp_rank_*_optim_states.pt"))


def load_as_universal(accelerator: Accelerator) -> None:
    """Make DeepSpeed load a universal checkpoint. It writes its usual ones from then on."""
    accelerator.state.deepspeed_plugin.deepspeed_config["checkpoint"] = {"load_universal": True}
