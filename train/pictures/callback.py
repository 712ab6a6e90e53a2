"""Draw pictures of what the model sees and answers during a training, for TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from transformers import TrainerCallback, TrainerState, TrainingArguments

from train.data.collator import Collator

from .asking import answer_row, draw_answer
from .card import contact_sheet

NUM_PICTURES = 4
MAX_ANSWER_TOKENS = 32


class PictureCallback(TrainerCallback):
    """Draw image, region, visual tokens, question and answer of a few fixed samples at regular steps.

    Args:
        samples: rows of `load_samples`; four with an image, evenly spread, are drawn.
        collator: turns them into prompts.
        steps: the steps from one drawing to the next.
    """

    def __init__(self, samples: datasets.Dataset, collator: Collator, steps: int) -> None:
        with_image = [index for index, images in enumerate(samples["images"]) if images]
        stride = max(1, len(with_image) // NUM_PICTURES)
        self.rows = [samples[index] for index in with_image[::stride][:NUM_PICTURES]]
        self.collator, self.steps = collator, steps
        self.writer: SummaryWriter | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self.writer = SummaryWriter(str(Path(args.output_dir) / "pictures"))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        if self.writer is not None:
            self.writer.close()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        """Answer on every process, since under ZeRO-3 the weights are spread over all, and draw on the first."""
        if state.global_step % self.steps or not self.rows or model is None:
            return
        # `generate` bypasses the Trainer's autocast, and trained weights are fp32 beside bf16 ones
        with torch.autocast(args.device.type, torch.bfloat16, enabled=args.bf16):
            answers = [self._answer(model, row) for row in self.rows]
        if self.writer is not None:
            cards = [draw_answer(self.collator, row, *answer) for row, answer in zip(self.rows, answers, strict=True)]
            self.writer.add_image("samples", np.asarray(contact_sheet(cards, 2)), state.global_step, dataformats="HWC")

    @torch.no_grad()
    def _answer(self, model: Any, row: Mapping[str, Any]) -> tuple[str, Tensor]:
        """Return the answer, and the token (N,) that every patch of the first image goes into."""
        was_training = model.training
        model.eval()
        try:
            return answer_row(model, self.collator, row, MAX_ANSWER_TOKENS)[:2]
        finally:
            model.train(was_training)
