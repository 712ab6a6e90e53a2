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

from .card import contact_sheet, draw_sample

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
            sheet = contact_sheet([self._draw(row, *answer) for row, answer in zip(self.rows, answers, strict=True)], 2)
            self.writer.add_image("samples", np.asarray(sheet), state.global_step, dataformats="HWC")

    @torch.no_grad()
    def _answer(self, model: Any, row: Mapping[str, Any]) -> tuple[str, Tensor]:
        """The model's answer, and the token (N,) that every patch of the first image went into."""
        slots: list[Tensor] = []
        compressor = next(module for name, module in model.named_modules() if name.endswith(".compressor"))

        def keep_slots(module: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
            features, region_mask = inputs
            slots.append(module.assign(region_mask, features)[0].cpu())

        was_training = model.training
        model.eval()
        hook = compressor.register_forward_hook(keep_slots)
        try:
            prompt = {
                key: value.to(model.device, model.dtype if value.is_floating_point() else None)
                for key, value in self.collator.prompts([row]).items()
            }
            tokens = model.generate(**prompt, max_new_tokens=MAX_ANSWER_TOKENS, do_sample=False)  # (1, L)
        finally:
            hook.remove()
            model.train(was_training)
        answer = tokens[0, prompt["input_ids"].shape[1] :]
        return self.collator.processor.decode(answer, skip_special_tokens=True).strip(), slots[0]

    def _draw(self, row: Mapping[str, Any], answer: str, slots: Tensor) -> Any:
        processor = self.collator.processor
        return draw_sample(
            self.collator.open_images(row)[0],
            self.collator.region(row),
            slots,
            processor.geometry,
            processor.patch_grid,
            row["question"],
            answer,
            row["answer"],
        )
