"""Teaches the demo's base to ground: from "the red frame" to the cells of the 8x8 grid in which it lies.

    python -m train.demo.grounding OUT [key=value ...]

The result stands where a user has Qwen2-VL-2B, which was trained on boxes before anybody makes a localizer of it; it is
shipped in configs/demo_grounding. `train.localizer` goes on from it: from a question to the region that answers it.

    phrase ("B3", "the red frame", "B3 and C4", "the dark panel") ─► "[xmin, ymin, xmax, ymax]"

Twelve phrases of a board in one row, each in a branch of its own (`train.demo.base_data`). Straight from the base, one
question a row, learning to write boxes stays on a plateau for long: docs/localizer.md.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import (
    AutoProcessor,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    get_cosine_schedule_with_warmup,
)

from crop_model.localization.grid_box import ANSWER
from crop_model.regions import Box, pixels_to_cells, union_box
from data_prep.boards.questions import BoardQuestion, pair_of_cells, random_cell, unique_colours
from data_prep.boards.scenes import Scene, cell_name
from data_prep.common.command_line import parse_config
from data_prep.common.errors import ConfigError, user_errors

from .base import read, see, which_are_right
from .base_data import BoardCollator, Boards

PROG = "python -m train.demo.grounding"
SHARES = {"place": 0.35, "frame": 0.3, "pair": 0.2, "panel": 0.15}  # of the phrases, where a board has such


@dataclass(frozen=True)
class GroundingRecipe:
    """Keys of the command line."""

    out: str = field(metadata={"help": "Folder for the model and its log."})
    base: str = field(default="configs/demo_base", metadata={"help": "What it starts from, and the processor."})
    steps: int = field(default=1000, metadata={"help": "Of training."})
    batch_images: int = field(default=8, metadata={"help": "Boards a step."})
    phrases_per_image: int = field(default=12, metadata={"help": "Of each board."})
    learning_rate: float = field(default=1.5e-3, metadata={"help": "Its peak; then a cosine leads to 0."})
    warmup_steps: int = field(default=30, metadata={"help": "Before the peak."})
    weight_decay: float = field(default=0.02, metadata={"help": "AdamW's."})
    seed: int = field(default=11, metadata={"help": "Of boards and phrases."})
    test_images: int = field(default=50, metadata={"help": "Boards with unseen scans at the end."})
    log_every: int = field(default=25, metadata={"help": "Steps between two lines of the log."})

    def __post_init__(self) -> None:
        if not (Path(self.base) / "config.json").is_file():
            raise ConfigError(f"base: no such model: {self.base}")


class GroundingBoards(Boards):
    """Boards with phrases for questions, and cells for answers."""

    kinds = tuple(SHARES)

    def ask(self, rng: np.random.Generator, scene: Scene) -> list[BoardQuestion]:
        """Different phrases about a board."""
        phrases: dict[str, BoardQuestion] = {}
        while len(phrases) < self.questions:
            kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
            found = _phrase(rng, scene, kind)
            if found is not None:
                text, boxes = found
                cells = pixels_to_cells(union_box(boxes), *scene.size)
                phrases.setdefault(text, BoardQuestion(kind, text, ANSWER.format(*cells), tuple(boxes), ()))
        return list(phrases.values())


def _phrase(rng: np.random.Generator, scene: Scene, kind: str) -> tuple[str, list[Box]] | None:
    """What a phrase says, and the boxes of what it names; None where the board has no such thing."""
    if kind == "place":
        cell = random_cell(rng, scene)
        return cell_name(cell), [scene.cell_box(cell)]
    if kind == "panel":
        return "the dark panel", [scene.block_box(scene.panel)]
    if kind == "frame":
        colours = unique_colours(scene)
        if not colours:
            return None
        colour = colours[rng.integers(len(colours))]
        return f"the {colour} frame", [scene.cell_box(cell) for cell in scene.framed_in(colour)]
    pair = pair_of_cells(rng, scene)
    if pair is None:
        return None
    names = [name.removeprefix("at ").removeprefix("in ") for _, name in pair]
    return " and ".join(names), [scene.cell_box(cell) for cell, _ in pair]


def train(recipe: GroundingRecipe) -> None:
    """Train and write model, processor and log.

    The vision tower rests: it names places already, and the demo's other models share it.
    """
    torch.manual_seed(recipe.seed)
    model = LlavaForConditionalGeneration.from_pretrained(recipe.base)
    processor = AutoProcessor.from_pretrained(recipe.base)
    model.train()
    model.model.vision_tower.requires_grad_(False)
    out = Path(recipe.out)
    out.mkdir(parents=True, exist_ok=True)
    with (out / "train_log.jsonl").open("w") as log:
        for line in _steps(model, processor, recipe):
            print(json.dumps(line), file=log, flush=True)
            print(json.dumps(line), flush=True)
        line = {"test": test(model, processor, recipe)}
        print(json.dumps(line), file=log)
        print(json.dumps(line))
    model.save_pretrained(out)
    processor.save_pretrained(out)


def _steps(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, recipe: GroundingRecipe
) -> Iterator[dict[str, Any]]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98))
    schedule = get_cosine_schedule_with_warmup(optimizer, recipe.warmup_steps, recipe.steps)
    boards = GroundingBoards(
        "train", recipe.steps * recipe.batch_images, recipe.phrases_per_image, processor, recipe.seed
    )
    loader = DataLoader(
        boards, recipe.batch_images, collate_fn=BoardCollator(processor), num_workers=1, prefetch_factor=4
    )
    start = time.perf_counter()
    for step, batch in enumerate(loader, start=1):
        optimizer.zero_grad()
        logits, _ = read(model, see(model, batch), batch)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        if step % recipe.log_every == 0 or step == recipe.steps:
            yield {"step": step, "loss": round(loss.item(), 4), "seconds": round(time.perf_counter() - start, 1)}


def test(model: LlavaForConditionalGeneration, processor: LlavaProcessor, recipe: GroundingRecipe) -> dict[str, float]:
    """The share of phrases of unseen boards whose every token is right, given those before it; by kind."""
    boards = GroundingBoards("test", recipe.test_images, recipe.phrases_per_image, processor, recipe.seed + 1)
    loader = DataLoader(boards, recipe.batch_images, collate_fn=BoardCollator(processor))
    right = which_are_right(model, loader, boards.kinds)
    return {kind: round(sum(right[kind]) / len(right[kind]), 4) for kind in boards.kinds if right[kind]}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 2 for a wrong call."""
    with user_errors(PROG):
        (recipe,) = parse_config(
            (GroundingRecipe,),
            sys.argv[1:] if argv is None else argv,
            prog=PROG,
            description=str(__doc__),
            positionals=("out",),
        )
        train(recipe)


if __name__ == "__main__":
    main()
