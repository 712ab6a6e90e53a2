"""`train.plc` that also writes which samples each process trains on at each step; for reliability.py.

deepspeed --num_gpus 2 tests/benchmarks/recorded_run.py CONFIG.yaml [key=value ...]

<run>/process-0.pid, <run>/batches-0.jsonl     of the first process; a step that is trained again stands there twice
"""

import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from train import plc
from train.engine import run
from train.engine.trainer import PlcTrainer


class RecordedTrainer(PlcTrainer):
    """Writes before every forward pass."""

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *rest: Any) -> Tensor:
        folder, process = Path(self.args.output_dir), self.args.process_index
        (folder / f"process-{process}.pid").write_text(str(os.getpid()))
        with (folder / f"batches-{process}.jsonl").open("a") as file:
            file.write(json.dumps({"step": self.state.global_step, "samples": inputs["sample_ids"]}) + "\n")
        return super().training_step(model, inputs, *rest)


if __name__ == "__main__":
    run.PlcTrainer = RecordedTrainer  # type: ignore[misc]
    plc.main()
