"""Train the demo's models: the keys, the optimiser's loop and the log that their recipes share."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import get_cosine_schedule_with_warmup

from data_prep.common.fill import key

LOG_FILE = "train_log.jsonl"


@dataclass(frozen=True)
class Recipe:
    """Define the keys that every recipe has."""

    out: str = field(metadata={"help": "Folder for the model and its log."})
    batch_images: int = key(8, "Boards per step.")
    warmup_steps: int = key(30, "Steps before the learning rate peaks; after them a cosine leads to 0.")
    weight_decay: float = key(0.02, "Weight decay of AdamW.")
    log_every: int = key(25, "Steps between two lines of the log.")


def train_steps(
    model: nn.Module,
    boards: Dataset,
    collator: Callable[[list[Any]], dict[str, Any]],
    losses: Callable[[dict[str, Any]], dict[str, Tensor]],
    recipe: Recipe,
    learning_rate: float,
) -> Iterator[dict[str, Any]]:
    """Train the parameters that require gradients on every board once; yield a line for the log every so many steps.

    Args:
        boards: as many as the steps take, `batch_images` per step.
        losses: the losses of a batch by name; their sum is minimised.
        learning_rate: the peak.
    """
    loader = DataLoader(boards, recipe.batch_images, collate_fn=collator, num_workers=1, prefetch_factor=4)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98))
    schedule = get_cosine_schedule_with_warmup(optimizer, recipe.warmup_steps, len(loader))
    start = time.perf_counter()
    for step, batch in enumerate(loader, start=1):
        optimizer.zero_grad()
        parts = losses(batch)
        torch.stack(list(parts.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        if step % recipe.log_every == 0 or step == len(loader):
            line = {"step": step} | {name: round(value.item(), 4) for name, value in parts.items()}
            seconds = round(time.perf_counter() - start, 1)
            yield line | {"learning_rate": schedule.get_last_lr()[0], "seconds": seconds}


def write_log(folder: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write and print each line as soon as it comes."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG_FILE).open("w") as log:
        for line in lines:
            print(json.dumps(line), file=log, flush=True)
            print(json.dumps(line), flush=True)
