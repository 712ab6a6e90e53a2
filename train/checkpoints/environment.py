"""Describe where a run was made: versions, hardware, source revision."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets")
ENVIRONMENT_FILE = "environment.json"  # in a training run's folder, beside config.yaml


def describe_environment(dtype: str) -> dict[str, Any]:
    """Collect what a measured time depends on: versions, hardware and source revision."""
    state = PartialState()
    on_gpu = state.device.type == "cuda"
    return {
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "device": torch.cuda.get_device_name(state.device) if on_gpu else _cpu_name(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "processes": state.num_processes,
        "dtype": dtype,
        "commit": _commit(),
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str | None:
    """Return the project's git revision, with a plus sign if files differ from it; None outside a checkout."""
    options = ["--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
    command = ["git", "-C", str(Path(__file__).parent), "describe", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() or None
