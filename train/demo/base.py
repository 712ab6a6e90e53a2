"""Trains the demo's base model: a LLaVA of 1.3 M parameters that reads boards of handwritten digits on full tokens.

    python -m train.demo.base OUT [key=value ...]

It stands where a user has LLaVA-1.5 and is shipped in configs/demo_base; it is plain transformers and nothing here
knows of compression. From random weights such a model stays at chance for very long, since the language model does not
find out which visual token a place or a colour names. What CLIP and LLaVA's first stage give a real model, it gets so:

1. `alignment`: projected visual tokens learn to name, by the language model's own (tied) word embeddings, the digit,
   place, colour and ground of the cell that they lie in.
2. `answers`: the language model learns from questions, the vision tower rests; the word that names a cell has to know
   the cell's digit one layer before the end.
3. `all`: everything learns.
4. `spread`: as before, but with visual tokens at random distances, so that a place is read from what a token says and
   not from its position.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers import LlavaForConditionalGeneration, LlavaProcessor, get_cosine_schedule_with_warmup

from data_prep.boards.questions import KINDS
from data_prep.common.command_line import parse_config
from data_prep.common.errors import user_errors

from .base_data import BoardCollator, Boards
from .base_model import PATCH_WORDS, build_model, build_processor

PROG = "python -m train.demo.base"
STAGES = ("alignment", "answers", "all", "spread")
SHARPNESS = 20.0  # of the alignment's cosines


@dataclass(frozen=True)
class BaseRecipe:
    """Keys of the command line."""

    out: str = field(metadata={"help": "Folder for the model and its log."})
    alignment_steps: int = field(default=800, metadata={"help": "Steps of the stage that names patches."})
    answers_steps: int = field(default=500, metadata={"help": "Steps with the vision tower at rest."})
    all_steps: int = field(default=1400, metadata={"help": "Steps in which everything learns."})
    spread_steps: int = field(default=700, metadata={"help": "Steps with visual tokens at random distances."})
    batch_images: int = field(default=8, metadata={"help": "Boards a step."})
    questions_per_image: int = field(default=12, metadata={"help": "Questions on each board."})
    alignment_learning_rate: float = field(default=2e-3, metadata={"help": "Peak of the stage `alignment`."})
    answers_learning_rate: float = field(default=2e-3, metadata={"help": "Peak of the stage `answers`."})
    all_learning_rate: float = field(default=1e-3, metadata={"help": "Peak of the stage `all`."})
    spread_learning_rate: float = field(default=6e-4, metadata={"help": "Peak of the stage `spread`."})
    warmup_steps: int = field(
        default=30, metadata={"help": "Steps of every stage before its learning rate peaks; then a cosine leads to 0."}
    )
    weight_decay: float = field(default=0.02, metadata={"help": "AdamW's."})
    seed: int = field(default=1, metadata={"help": "Of weights and boards."})
    test_images: int = field(
        default=100, metadata={"help": "Boards with unseen scans, asked during training and at its end."}
    )
    log_every: int = field(default=25, metadata={"help": "Steps between two lines of the log."})
    test_every: int = field(
        default=250, metadata={"help": "Steps of a stage between two tests; the first stage has none."}
    )


def see(model: LlavaForConditionalGeneration, batch: dict[str, Any]) -> torch.Tensor:
    """Projected visual tokens (B, N, D)."""
    return torch.stack(list(model.get_image_features(batch["pixel_values"]).pooler_output))


def read(
    model: LlavaForConditionalGeneration, features: torch.Tensor, batch: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits after the last layer and before it, both (B, L, V)."""
    embeddings = model.get_input_embeddings()(batch["input_ids"])  # (B, L, D)
    placeholders = (batch["input_ids"] == model.config.image_token_id)[..., None].expand_as(embeddings)
    language_model = model.model.language_model
    output = language_model(
        inputs_embeds=embeddings.masked_scatter(placeholders, features.to(embeddings.dtype)),
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        use_cache=False,
        output_hidden_states=True,
    )
    return model.lm_head(output.last_hidden_state), model.lm_head(language_model.norm(output.hidden_states[-2]))


def alignment_loss(features: torch.Tensor, embeddings: torch.Tensor, shown: torch.Tensor, words: list[int]):
    """Kullback-Leibler divergence of the words that a patch shows, all equally likely, from those its cosines name.

    features (B, N, D), embeddings (V, D), shown (B, N, words) bool; patches that show nothing (padding) do not count.
    """
    names = F.normalize(embeddings[words], dim=-1)  # (words, D)
    scores = (SHARPNESS * F.normalize(features.float(), dim=-1) @ names.T).log_softmax(-1)  # (B, N, words)
    count = shown.sum(-1)  # (B, N)
    known = count > 0
    return (-(scores * shown).sum(-1)[known] / count[known] - count[known].log()).mean()


@torch.no_grad()
def which_are_right(
    model: LlavaForConditionalGeneration, loader: DataLoader, kinds: Sequence[str]
) -> dict[str, list[bool]]:
    """By kind, for each question whether all tokens of its answer, the end among them, are right given those before."""
    model.eval()
    right: dict[str, list[bool]] = defaultdict(list)
    for batch in loader:
        logits, _ = read(model, see(model, batch), batch)
        wrong = (logits[:, :-1].argmax(-1) != batch["labels"][:, 1:]) & (batch["labels"][:, 1:] != -100)
        for row, asked in enumerate(batch["kinds"].tolist()):
            bad = set(batch["branch"][row, 1:][wrong[row]].tolist())
            for number, kind in enumerate(asked, start=1):
                right[kinds[kind]].append(number not in bad)
    model.train()
    return right


def test(model: LlavaForConditionalGeneration, loader: DataLoader) -> dict[str, float]:
    """Accuracy over all questions and by kind."""
    right = which_are_right(model, loader, list(KINDS))
    every = [value for values in right.values() for value in values]
    scores = {"accuracy": every} | dict(sorted(right.items()))
    return {name: round(sum(values) / len(values), 4) for name, values in scores.items()}


def losses(
    model: LlavaForConditionalGeneration, batch: dict[str, Any], words: list[int], stage: str
) -> dict[str, torch.Tensor]:
    """The losses of one step, by name; their sum is what is minimised."""
    with torch.autocast("cpu", torch.bfloat16):
        features = see(model, batch)
        logits, early = read(model, features, batch) if stage != "alignment" else (None, None)
    found = {"alignment_loss": alignment_loss(features, model.get_input_embeddings().weight, batch["shown"], words)}
    if logits is not None and early is not None:
        found["answer_loss"] = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), batch["labels"][:, 1:].flatten())
        found["reference_loss"] = F.cross_entropy(early.flatten(0, 1).float(), batch["references"].flatten())
    return found


def train_stage(
    model: LlavaForConditionalGeneration, processor: LlavaProcessor, recipe: BaseRecipe, stage: str
) -> Iterator[dict[str, Any]]:
    """Trains one stage; yields a line for the log every so many steps."""
    steps, rate = {
        "alignment": (recipe.alignment_steps, recipe.alignment_learning_rate),
        "answers": (recipe.answers_steps, recipe.answers_learning_rate),
        "all": (recipe.all_steps, recipe.all_learning_rate),
        "spread": (recipe.spread_steps, recipe.spread_learning_rate),
    }[stage]
    model.model.vision_tower.requires_grad_(stage != "answers")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=recipe.weight_decay, betas=(0.9, 0.98))
    schedule = get_cosine_schedule_with_warmup(optimizer, recipe.warmup_steps, steps)
    words = processor.tokenizer.convert_tokens_to_ids(list(PATCH_WORDS))
    seed = recipe.seed + 1 + STAGES.index(stage)
    collator = BoardCollator(processor, spread=stage == "spread")
    boards = Boards("train", steps * recipe.batch_images, recipe.questions_per_image, processor, seed)
    start = time.perf_counter()
    loader = DataLoader(boards, recipe.batch_images, collate_fn=collator, num_workers=1, prefetch_factor=4)
    for step, batch in enumerate(loader, start=1):
        optimizer.zero_grad()
        found = losses(model, batch, words, stage)
        torch.stack(list(found.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        if step % recipe.log_every == 0 or step == steps:
            values = {name: round(value.item(), 4) for name, value in found.items()}
            rate, seconds = schedule.get_last_lr()[0], time.perf_counter() - start
            yield {"stage": stage, "step": step, **values, "learning_rate": rate, "seconds": round(seconds, 1)}


def train(recipe: BaseRecipe) -> None:
    """Trains all stages, tests and saves to `recipe.out`, with a log of one line a logged step."""
    out = Path(recipe.out)
    torch.manual_seed(recipe.seed)
    processor = build_processor()
    model = build_model(processor.tokenizer).train()
    held_out = Boards("test", recipe.test_images, recipe.questions_per_image, processor, recipe.seed)
    loader = DataLoader(held_out, 25, collate_fn=BoardCollator(processor))
    out.mkdir(parents=True, exist_ok=True)
    with (out / "train_log.jsonl").open("w") as log:
        for stage in STAGES:
            for line in train_stage(model, processor, recipe, stage):
                if stage != "alignment" and line["step"] % recipe.test_every == 0:
                    line["test"] = test(model, loader)
                    model.save_pretrained(out)
                print(json.dumps(line), file=log, flush=True)
                print(json.dumps(line), flush=True)
            model.save_pretrained(out)
        print(json.dumps({"stage": "test", "test": test(model, loader)}), file=log)
    processor.save_pretrained(out)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 2 for a wrong call."""
    with user_errors(PROG):
        (recipe,) = parse_config(
            (BaseRecipe,),
            sys.argv[1:] if argv is None else argv,
            prog=PROG,
            description=str(__doc__),
            positionals=("out",),
        )
        train(recipe)


if __name__ == "__main__":
    main()
