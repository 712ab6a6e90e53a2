"""Write checkpoint folders that are whole or not there: written aside, listed with their hashes, renamed.

    <run>/_saving/checkpoint-50/...            every process writes its files here
    <run>/_saving/checkpoint-50/manifest.json  last: step, processes, the run's identity, every file's size and sha256
    <run>/checkpoint-50/                       by one rename, once all of it is on the disk

A process that is killed at any moment leaves at most a `_saving` folder, which nothing reads and the next run removes.
Every node has to see the same run folder.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from transformers.trainer_utils import sort_checkpoints

from data_prep.common.errors import ConfigError, RunError

MANIFEST = "manifest.json"
STAGING = "_saving"  # no name that `sort_checkpoints` or an upload of the run folder takes


def clear_staging(run: Path) -> None:
    """Make an empty folder to write into, and remove what a killed run left there."""
    shutil.rmtree(run / STAGING, ignore_errors=True)
    (run / STAGING).mkdir(parents=True)


def publish(run: Path, name: str) -> None:
    """Move a finished folder from `_saving` into the run's folder; it replaces an older one of that name."""
    share_weights(run / STAGING / name)
    if (run / name).exists():
        (run / name).rename(run / STAGING / f"old-{name}")
    (run / STAGING / name).rename(run / name)
    sync(run)
    shutil.rmtree(run / STAGING)


def share_weights(folder: Path) -> None:
    """Give the weights the permissions of the folder's JSON files: safetensors 0.8 writes them for the owner alone."""
    usual = min((path.stat().st_mode for path in folder.glob("*.json")), default=None)
    for weights in folder.rglob("*.safetensors"):
        if usual not in (None, weights.stat().st_mode):
            weights.chmod(usual)


def write_manifest(folder: Path, step: int, processes: int, identity: dict[str, Any]) -> None:
    """Sync every file of a folder to the disk and list them with their hashes.

    Raises:
        RunError: a process's file is missing, so that process writes to another disk.
    """
    for process in range(processes) if processes > 1 else ():
        if not (folder / f"rng_state_{process}.pth").is_file():
            raise RunError(f"{folder}: process {process} wrote elsewhere: every node has to see the same output_dir")
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST):
        sync(path)
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
    content = {"step": step, "processes": processes, "identity": identity, "files": files}
    (folder / MANIFEST).write_text(json.dumps(content, indent=1), encoding="utf-8")
    sync(folder / MANIFEST)
    for inner in (*filter(Path.is_dir, folder.rglob("*")), folder):
        sync(inner)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what `write_manifest` wrote. Raises ConfigError if it is missing or not whole."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ConfigError(f"{folder}: no {MANIFEST}: not a checkpoint, or one that is not whole")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ConfigError(f"{path}: not JSON") from None


def check_whole(folder: Path) -> None:
    """Raise ConfigError on the first file of the manifest that is missing or not what was written."""
    for name, expected in read_manifest(folder)["files"].items():
        path = folder / name
        if not path.is_file():
            raise ConfigError(f"{folder}: {name} is missing")
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise ConfigError(f"{folder}: {name} has {size} bytes of {expected['bytes']}")
        if _sha256(path) != expected["sha256"]:
            raise ConfigError(f"{folder}: {name} is not what was written")


def newest_whole(run: Path) -> tuple[Path | None, list[str]]:
    """Find the whole checkpoint of the highest step, and one line about each newer one: what is wrong with it."""
    problems = []
    for folder in map(Path, reversed(sort_checkpoints(str(run)))):
        try:
            check_whole(folder)
        except ConfigError as error:
            problems.append(str(error))
        else:
            return folder, problems
    return None, problems


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
