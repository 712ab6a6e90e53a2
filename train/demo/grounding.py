"""Teach the demo's base to ground: from "the red frame" to the cells of the 8x8 grid in which it lies.

    python -m train.demo.grounding OUT [key=value ...]

The result takes the part that Qwen2-VL-2B, which was trained on boxes, has for a user, and is shipped in
configs/demo_grounding. `train.localizer` starts from it and learns the step from a question to its answer's region.

    phrase ("B3", "the red frame", "B3 and C4", "the dark panel") ─► "[xmin, ymin, xmax, ymax]"

A row holds twelve phrases about one board, each in its own branch (`train.demo.base_data`). Starting from the base with
one question per row, learning to write boxes stays on a plateau for a long time: docs/localizer.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from crop_model.localization.grid_box import ANSWER
from crop_model.regions import Box, pixels_to_cells, union_box
from data_prep.boards.questions import BoardQuestion, pair_of_cells, random_cell, unique_colours
from data_prep.boards.scenes import Scene, cell_name
from data_prep.common.command_line import command
from data_prep.common.fill import Checked, key

from .base_data import BoardCollator, Boards
from .loop import Recipe, train_steps, write_log
from .reading import read, see, which_are_right

SHARES = {
    "place": 0.35,
    "frame": 0.3,
    "pair": 0.2,
    "panel": 0.15,
}  # shares of the phrases, if the board has such a thing


@dataclass(frozen=True)
class GroundingRecipe(Checked, Recipe):
    """Define the keys of the command line."""

    base: str = key("configs/demo_base", "Model to start from, with its processor.")
    steps: int = key(1000, "Training steps.")
    phrases_per_image: int = key(12, "Phrases about each board.")
    learning_rate: float = key(1.5e-3, "Peak of the learning rate.")
    seed: int = key(11, "Seed of boards and phrases.")
    test_images: int = key(50, "Boards with unseen scans for the test at the end.")

    def mistakes(self) -> Iterator[str]:
        if not (Path(self.base) / "config.json").is_file():
            yield f"base: no such model: {self.base}"


class GroundingBoards(Boards):
    """Yield boards with phrases as questions and cells as answers."""

    kinds = tuple(SHARES)

    def ask(self, rng: np.random.Generator, scene: Scene) -> list[BoardQuestion]:
        """Draw different phrases about a board."""
        phrases: dict[str, BoardQuestion] = {}
        while len(phrases) < self.questions:
            kind = str(rng.choice(list(SHARES), p=list(SHARES.values())))
            phrase = _phrase(rng, scene, kind)
            if phrase is not None:
                text, boxes = phrase
                cells = pixels_to_cells(union_box(boxes), *scene.size)
                phrases.setdefault(text, BoardQuestion(kind, text, ANSWER.format(*cells), tuple(boxes), ()))
        return list(phrases.values())


def _phrase(rng: np.random.Generator, scene: Scene, kind: str) -> tuple[str, list[Box]] | None:
    """Draw the text of a phrase and the boxes of what it names; None if the board has no such thing."""
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


@command("train.demo.grounding", GroundingRecipe, positionals=("out",))
def main(recipe: GroundingRecipe) -> None:
    """Teach the demo's base model to ground phrases.

    The vision tower is frozen: it names cells already, and the demo's other models share it.
    """
    torch.manual_seed(recipe.seed)
    model = LlavaForConditionalGeneration.from_pretrained(recipe.base)
    processor = AutoProcessor.from_pretrained(recipe.base)
    model.train()
    model.model.vision_tower.requires_grad_(False)
    write_log(Path(recipe.out), _log_lines(model, processor, recipe))
    model.save_pretrained(recipe.out)
    processor.save_pretrained(recipe.out)


def _log_lines(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, recipe: GroundingRecipe
) -> Iterator[dict[str, Any]]:
    def losses(batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        logits, _ = read(model, see(model, batch), batch)
        return {"loss": F.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())}

    boards = GroundingBoards(
        "train", recipe.steps * recipe.batch_images, recipe.phrases_per_image, processor, recipe.seed
    )
    yield from train_steps(model, boards, BoardCollator(processor), losses, recipe, recipe.learning_rate)
    yield {"test": test(model, processor, recipe)}


def test(model: LlavaForConditionalGeneration, processor: LlavaProcessor, recipe: GroundingRecipe) -> dict[str, float]:
    """Compute, by kind, the share of phrases of unseen boards whose every token is right given those before it."""
    boards = GroundingBoards("test", recipe.test_images, recipe.phrases_per_image, processor, recipe.seed + 1)
    loader = DataLoader(boards, recipe.batch_images, collate_fn=BoardCollator(processor))
    right = which_are_right(model, loader, boards.kinds)
    return {kind: round(sum(right[kind]) / len(right[kind]), 4) for kind in boards.kinds if right[kind]}


if __name__ == "__main__":
    main()
