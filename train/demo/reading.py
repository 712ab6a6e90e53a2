"""Run the demo's models on rows of many questions about a board, each in a branch of its own."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import LlavaForConditionalGeneration


def see(model: LlavaForConditionalGeneration, batch: dict[str, Any]) -> torch.Tensor:
    """Compute the projected visual tokens (B, N, D)."""
    return torch.stack(list(model.get_image_features(batch["pixel_values"]).pooler_output))


def read(
    model: LlavaForConditionalGeneration, features: torch.Tensor, batch: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the logits after the last layer and before it, both (B, L, V)."""
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


@torch.no_grad()
def which_are_right(
    model: LlavaForConditionalGeneration, loader: DataLoader, kinds: Sequence[str]
) -> dict[str, list[bool]]:
    """Find, by kind and for each question, whether every token of its answer is right given the tokens before it."""
    model.eval()
    right: dict[str, list[bool]] = defaultdict(list)
    for batch in loader:
        logits, _ = read(model, see(model, batch), batch)
        wrong = (logits[:, :-1].argmax(-1) != batch["labels"][:, 1:]) & (batch["labels"][:, 1:] != -100)
        for row, row_kinds in enumerate(batch["kinds"].tolist()):
            bad = set(batch["branch"][row, 1:][wrong[row]].tolist())
            for number, kind in enumerate(row_kinds, start=1):
                right[kinds[kind]].append(number not in bad)
    model.train()
    return right
