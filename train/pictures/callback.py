"""What a run shows besides its curves: pictures of what the model sees and answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from train.data.collator import Collator

from .asking import answer_row, draw_answer
from .card import contact_sheet

NUM_PICTURES = 4
MAX_ANSWER_TOKENS = 32


class PictureCallback(TrainerCallback):
    """Every so many steps: image, region, what the visual tokens keep, question and answer of a few fixed samples.

    Args:
        samples: rows of `train.data.load_samples`; four with an image, evenly spread, are drawn.
        collator: turns them into prompts.
        steps: how often.
    """

    def __init__(self, samples: datasets.Dataset, collator: Collator, steps: int) -> None:
        with_image = [index for index, images in enumerate(samples["images"]) if images]
        stride = max(1, len(with_image) // NUM_PICTURES)
        self.rows = [samples[index] for index in with_image[::stride][:NUM_PICTURES]]
        self.collator = collator
        self.steps = steps
        self.writer: SummaryWriter | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            self.writer = SummaryWriter(str(Path(args.output_dir) / "pictures"))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.writer is not None:
            self.writer.close()

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        """Every process answers, since under ZeRO-3 the weights are spread over all; the first one draws."""
        if state.global_step % self.steps or not self.rows or model is None:
            return
        # `generate` goes past the Trainer's autocast, and what trains is fp32 beside bf16 weights
        with torch.autocast(args.device.type, torch.bfloat16, enabled=args.bf16):
            answers = [self._answer(model, row) for row in self.rows]
        if self.writer is not None:
            sheet = contact_sheet(
                [draw_answer(self.collator, row, *answer) for row, answer in zip(self.rows, answers, strict=True)], 2
            )
            self.writer.add_image("samples", np.asarray(sheet), state.global_step, dataformats="HWC")

    @torch.no_grad()
    def _answer(self, model: Any, row: Mapping[str, Any]) -> tuple[str, Tensor]:
        """Return the answer, and the token (N,) that every patch of the first image goes into."""
        was_training = model.training
        model.eval()
        try:
            return answer_row(model, self.collator, row, MAX_ANSWER_TOKENS)[:2]
        finally:
            model.train(was_training)
