"""Shut down gracefully: on SIGTERM or SIGUSR1, finish the step, save a checkpoint and exit with status 75.

A container or a shell sends SIGTERM; `launch/slurm.sbatch` asks Slurm for SIGUSR1 before pre-emption and before the
time limit. It is enough that one process receives the signal: after every step all processes exchange whether they did.
"""

import signal
from types import FrameType
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

STOPPED_STATUS = 75  # EX_TEMPFAIL of sysexits.h: try again later
SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class StopOnSignal(TrainerCallback):
    """Note the signals of `SIGNALS` inside the `with` block, and stop the training after a saved step."""

    def __init__(self) -> None:
        self.signalled = False
        self.stopped = False  # before the training's own end
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopOnSignal":
        self._handlers = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signalled = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if not self._any_process(args) or state.global_step >= state.max_steps:
            return
        self.stopped = True
        control.should_save = True
        control.should_training_stop = True

    def _any_process(self, args: TrainingArguments) -> bool:
        if args.world_size == 1:
            return self.signalled
        flag = torch.tensor(float(self.signalled), device=args.device)
        distributed.all_reduce(flag, distributed.ReduceOp.MAX)
        return bool(flag.item())
