"""Profile a few steps with torch.profiler, as a trace that chrome://tracing and ui.perfetto.dev open."""

from pathlib import Path
from typing import Any

from torch.profiler import profile, schedule, tensorboard_trace_handler
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

WAIT, WARM_UP = 1, 1  # steps: the first one allocates and compiles, the second pays for the profiler's own start


class ProfileCallback(TrainerCallback):
    """Record `steps` steps of every process into `folder`, then stop, so that the rest of the run keeps its speed."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.profiler = profile(
            schedule=schedule(wait=WAIT, warmup=WARM_UP, active=steps, repeat=1),
            on_trace_ready=tensorboard_trace_handler(str(folder)),
            record_shapes=True,
            profile_memory=True,
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.profiler.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.profiler.step()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.profiler.stop()
