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


def remove_buffers(port: int) -> None:
    """Remove what a run of that port has left in memory: DeepSpeed's 60 MB for each process on the CPU, which stay."""
    for path in Path("/dev/shm").glob(f"deepspeed_allreduce_buffer_*_{port}_*"):
        path.unlink()


def command(processes: int, port: int, *words: str) -> list[str]:
    """What starts so many processes; `words` name a module or a script, and what it is told."""
    return [str(LAUNCHER), "--num_gpus", str(processes), "--master_port", str(port), *words]


def environment(**more: str) -> dict[str, str]:
    """This process's variables and more, with the launcher's folder, where ninja lies too, in front on PATH."""
    variables = {**os.environ, **more}
    return {**variables, "PATH": f"{LAUNCHER.parent}{os.pathsep}{variables['PATH']}"}
