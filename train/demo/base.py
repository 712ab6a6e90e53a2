"""Train the demo's base model: a LLaVA of 1.3 M parameters that reads boards of handwritten digits on full tokens.

    python -m train.demo.base OUT [key=value ...]

The model takes the part that LLaVA-1.5 has for a user, and is shipped in configs/demo_base. It is plain transformers;
nothing here knows of compression. From random weights such a model stays at chance for a long time, because the
language model does not discover which visual token a cell's name or a colour refers to. Four stages replace what CLIP
and LLaVA's first stage give a real model:

1. `alignment`: projected visual tokens learn to name, by the language model's own (tied) word embeddings, the digit,
   name, colour and ground of the cell that they show.
2. `answers`: the language model learns from questions and the vision tower is frozen; the word that names a cell must
   predict the cell's digit one layer before the end.
3. `all`: all parameters learn.
4. `spread`: the same, with visual tokens at random distances, so that the model reads a cell's name from the content of
   a token and not from its position.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from data_prep.boards.questions import KINDS
from data_prep.common.command_line import command
from data_prep.common.fill import key

from .base_data import BoardCollator, Boards
from .base_model import PATCH_WORDS, build_model, build_processor
from .loop import Recipe, train_steps, write_log
from .reading import read, see, which_are_right

STAGES = ("alignment", "answers", "all", "spread")
SHARPNESS = 20.0  # factor of the alignment's cosines


@dataclass(frozen=True)
class BaseRecipe(Recipe):
    """Define the keys of the command line."""

    alignment_steps: int = key(800, "Steps of the stage that names patches.")
    answers_steps: int = key(500, "Steps with the vision tower frozen.")
    all_steps: int = key(1400, "Steps in which all parameters learn.")
    spread_steps: int = key(700, "Steps with visual tokens at random distances.")
    questions_per_image: int = key(12, "Questions on each board.")
    alignment_learning_rate: float = key(2e-3, "Peak of the stage `alignment`.")
    answers_learning_rate: float = key(2e-3, "Peak of the stage `answers`.")
    all_learning_rate: float = key(1e-3, "Peak of the stage `all`.")
    spread_learning_rate: float = key(6e-4, "Peak of the stage `spread`.")
    seed: int = key(1, "Seed of weights and boards.")
    test_images: int = key(100, "Boards with unseen scans, for the tests during training and at its end.")
    test_every: int = key(250, "Steps of a stage between two tests; the first stage has none.")


def alignment_loss(features: torch.Tensor, embeddings: torch.Tensor, shown: torch.Tensor, words: list[int]):
    """Compute the KL divergence of the words that a patch shows, all equally likely, from those that its cosines name.

    Args:
        features: visual tokens (B, N, D).
        embeddings: word embeddings (V, D).
        shown: which words each patch shows, (B, N, words) bool; a patch that shows none (padding) does not count.
        words: ids of these words.
    """
    names = F.normalize(embeddings[words], dim=-1)  # (words, D)
    scores = (SHARPNESS * F.normalize(features.float(), dim=-1) @ names.T).log_softmax(-1)  # (B, N, words)
    count = shown.sum(-1)  # (B, N)
    known = count > 0
    return (-(scores * shown).sum(-1)[known] / count[known] - count[known].log()).mean()


def test(model: LlavaForConditionalGeneration, loader: DataLoader) -> dict[str, float]:
    """Compute the accuracy over all questions and by kind."""
    right = which_are_right(model, loader, list(KINDS))
    every = [value for values in right.values() for value in values]
    scores = {"accuracy": every} | dict(sorted(right.items()))
    return {name: round(sum(values) / len(values), 4) for name, values in scores.items()}


def losses(
    model: LlavaForConditionalGeneration, batch: dict[str, Any], words: list[int], stage: str
) -> dict[str, torch.Tensor]:
    """Compute the losses of one step by name."""
    with torch.autocast("cpu", torch.bfloat16):
        features = see(model, batch)
        logits, early = read(model, features, batch) if stage != "alignment" else (None, None)
    parts = {"alignment_loss": alignment_loss(features, model.get_input_embeddings().weight, batch["shown"], words)}
    if logits is not None and early is not None:
        parts["answer_loss"] = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch["labels"][:, 1:].flatten())
        parts["reference_loss"] = F.cross_entropy(early.flatten(0, 1).float(), batch["references"].flatten())
    return parts


def train_stage(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, recipe: BaseRecipe, stage: str
) -> Iterator[dict[str, Any]]:
    """Train one stage; yield a line for the log every so many steps."""
    steps, rate = {
        "alignment": (recipe.alignment_steps, recipe.alignment_learning_rate),
        "answers": (recipe.answers_steps, recipe.answers_learning_rate),
        "all": (recipe.all_steps, recipe.all_learning_rate),
        "spread": (recipe.spread_steps, recipe.spread_learning_rate),
    }[stage]
    model.model.vision_tower.requires_grad_(stage != "answers")
    words = processor.tokenizer.convert_tokens_to_ids(list(PATCH_WORDS))
    seed = recipe.seed + 1 + STAGES.index(stage)
    collator = BoardCollator(processor, spread=stage == "spread")
    boards = Boards("train", steps * recipe.batch_images, recipe.questions_per_image, processor, seed)
    stage_losses = partial(losses, model, words=words, stage=stage)
    for line in train_steps(model, boards, collator, stage_losses, recipe, rate):
        yield {"stage": stage} | line


@command("train.demo.base", BaseRecipe, positionals=("out",))
def main(recipe: BaseRecipe) -> None:
    """Train the demo's base model: a small LLaVA that reads boards of handwritten digits."""
    torch.manual_seed(recipe.seed)
    processor = build_processor()
    model = build_model(processor.tokenizer).train()
    held_out = Boards("test", recipe.test_images, recipe.questions_per_image, processor, recipe.seed)
    loader = DataLoader(held_out, 25, collate_fn=BoardCollator(processor))
    write_log(Path(recipe.out), _all_stages(model, processor, recipe, loader))
    processor.save_pretrained(recipe.out)


def _all_stages(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, recipe: BaseRecipe, loader: DataLoader
) -> Iterator[dict[str, Any]]:
    for stage in STAGES:
        for line in train_stage(model, processor, recipe, stage):
            if stage != "alignment" and line["step"] % recipe.test_every == 0:
                line["test"] = test(model, loader)
                model.save_pretrained(recipe.out)
            yield line
        model.save_pretrained(recipe.out)
    yield {"stage": "test", "test": test(model, loader)}


if __name__ == "__main__":
    main()
