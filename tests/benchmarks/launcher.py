"""How benchmarks start runs: under the deepspeed launcher of their own environment."""

import os
import socket
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCHER = Path(sys.executable).parent / "deepspeed"
ON_THE_CPU = {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(processes: int, port: int, *words: str) -> list[str]:
    """What starts so many processes; `words` name a module or a script, and what it is told."""
    return [str(LAUNCHER), "--num_gpus", str(processes), "--master_port", str(port), *words]


def environment(**more: str) -> dict[str, str]:
    """This process's variables, with the launcher's folder, where ninja lies too, in front on PATH."""
    return {**os.environ, **more, "PATH": f"{LAUNCHER.parent}{os.pathsep}{os.environ['PATH']}"}
