"""Measure where a step's time goes and how much it processes, for `train_log.jsonl` and TensorBoard.

    |<------------------- step ------------------->|
    | data | forward and backward, each micro-batch | rest |

    rest: gradient clipping and the optimizer. DeepSpeed does both, and exchanges gradients, inside the backward call of
    the last micro-batch: there they count as forward and backward, and the rest is about 0.

Evaluation, checkpoints and pictures lie between steps and are not counted.
"""

import json
import resource
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from crop_model.cost.model import ModelShape
from crop_model.generation.timing import wait_for
from data_prep.common.atomic import write_atomically

LOG_FILE = "train_log.jsonl"
# Dense bf16 FLOP/s by a part of the device's name, from the makers' data sheets.
PEAK_FLOPS = {"A100": 312e12, "H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12}
_SUMS = ("samples", "tokens", "positions", "visual_tokens", "flops")  # added over processes; positions with padding
_TIMES = ("step_s", "data_s", "forward_backward_s")  # averaged over processes


class StepMeter(TrainerCallback):
    """Measure times and counts between two log lines, over all processes, and write them to a JSONL file.

    Args:
        accelerator: exchanges the counts.
        image_token_id: the placeholder of a visual token.
        shape: of the model, to count floating-point operations; None: they are not counted.
        bf16: whether it computes in bf16. The device's peak, and so the utilisation (MFU), is known for bf16 only.
        adapter_parameters: number of parameters in LoRA's matrices.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        image_token_id: int,
        shape: ModelShape | None,
        bf16: bool,
        adapter_parameters: int,
    ) -> None:
        self.accelerator = accelerator
        self.image_token_id = image_token_id
        self.shape = shape
        self.adapter_parameters = adapter_parameters
        self.peak_flops = peak_flops() if bf16 and shape is not None else None
        self._start = 0.0
        self.rates: dict[str, float] = {}  # the last step's, by module group
        self._clear()

    def _clear(self) -> None:
        self.steps = 0
        self.totals = dict.fromkeys((*_SUMS, *_TIMES), 0.0)

    @contextmanager
    def data(self) -> Iterator[None]:
        """Time the fetching of a step's batches, with which a step starts."""
        self._start = time.perf_counter()
        yield
        self.totals["data_s"] += time.perf_counter() - self._start

    @contextmanager
    def forward_backward(self) -> Iterator[None]:
        """Time a forward and backward pass, and wait for the device, whose work would be timed later otherwise."""
        start = time.perf_counter()
        yield
        wait_for(self.accelerator.device)
        self.totals["forward_backward_s"] += time.perf_counter() - start

    def count(self, batches: Sequence[dict[str, Any]]) -> None:
        """Add a step's batches to the totals.

        FLOPs count the model's own work: neither recomputed activations, nor pairs of tokens in a packed row that do
        not attend to each other.
        """
        for batch in batches:
            self.totals["positions"] += batch["input_ids"].numel()
            self.totals["samples"] += len(batch["sample_ids"])
            if self.shape is None:
                self.totals["tokens"] += int(batch["attention_mask"].sum())
                self.totals["visual_tokens"] += int((batch["input_ids"] == self.image_token_id).sum())
            else:
                self._count_work(batch, self.shape)

    def _count_work(self, batch: dict[str, Any], shape: ModelShape) -> None:
        per_image = shape.compressor.num_tokens
        rows = batch["sample_sizes"] if "sample_sizes" in batch else [self._sizes(batch, per_image)]
        for tokens, images in chain.from_iterable(rows):
            visual_tokens = images * per_image
            self.totals["tokens"] += tokens
            self.totals["visual_tokens"] += visual_tokens
            self.totals["flops"] += shape.training_step(
                tokens - visual_tokens, images, adapter_parameters=self.adapter_parameters
            ).flops

    def _sizes(self, batch: dict[str, Any], per_image: int) -> list[list[int]]:
        """Count tokens and images of every sample of a padded batch."""
        tokens = batch["attention_mask"].sum(dim=1)  # (B,)
        visual_tokens = (batch["input_ids"] == self.image_token_id).sum(dim=1)
        return torch.stack([tokens, visual_tokens // per_image], dim=1).tolist()

    def read(self) -> dict[str, float]:
        """Return the figures since the last call, and start anew. Every process must call it."""
        values = [self.totals[key] for key in (*_SUMS, *_TIMES)] + [float(peak_memory_bytes())]
        every = self.accelerator.gather(torch.tensor([values], dtype=torch.float64, device=self.accelerator.device))
        sums = dict(zip(_SUMS, every[:, : len(_SUMS)].sum(dim=0).tolist(), strict=True))
        times = dict(zip(_TIMES, every[:, len(_SUMS) : -1].mean(dim=0).tolist(), strict=True))
        per_step = {key: value / max(self.steps, 1) for key, value in times.items()}
        self._clear()
        available = times["step_s"] * len(every) * (self.peak_flops or 0)
        utilisation = {"mfu": sums["flops"] / available} if available else {}
        return (
            {f"lr/{group}": rate for group, rate in self.rates.items()}
            | utilisation
            | {
                "samples_per_s": sums["samples"] / times["step_s"],
                "tokens_per_s": sums["tokens"] / times["step_s"],
                "visual_tokens_per_sample": sums["visual_tokens"] / max(sums["samples"], 1),
                "padding_fraction": 1 - sums["tokens"] / sums["positions"],
                **per_step,
                "rest_s": per_step["step_s"] - per_step["data_s"] - per_step["forward_backward_s"],
                "peak_memory_bytes": every[:, -1].max().item(),
            }
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Drop what an earlier run wrote after the step that this run starts from."""
        path = Path(args.output_dir) / LOG_FILE
        if state.is_world_process_zero and path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            write_atomically(path, "".join(x for x in lines if json.loads(x)["step"] <= state.global_step))

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: torch.optim.Optimizer | None = None,
        **kwargs: Any,
    ) -> None:
        """End a step, before its learning rates change and before other callbacks draw or save."""
        wait_for(self.accelerator.device)
        self.rates = {group["name"]: group["lr"] for group in optimizer.param_groups} if optimizer else {}
        self.steps += 1
        self.totals["step_s"] += time.perf_counter() - self._start

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write one line for a logged step or an evaluation."""
        if not state.is_world_process_zero or not logs:
            return
        line: dict[str, Any] = {"step": state.global_step}
        line |= {key: value for key, value in logs.items() if not key.startswith("lr/")}
        rates = {key.removeprefix("lr/"): value for key, value in logs.items() if key.startswith("lr/")}
        if rates:
            line |= {"lr": rates, "mfu": logs.get("mfu")}
        with (Path(args.output_dir) / LOG_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def peak_flops() -> float | None:
    """Return this GPU's bf16 FLOP/s, or None without a GPU or for an unknown one."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)


def peak_memory_bytes() -> int:
    """Return the most memory that this process has held, on the GPU if there is one, else on the host."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
