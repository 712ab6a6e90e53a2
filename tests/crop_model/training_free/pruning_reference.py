"""A slow reference of ILP: plain Python chooses tokens, and hooks hide the others from the later layers by a mask.

Nothing is dropped, every tensor keeps its length, and there may be no cache.
"""

from contextlib import contextmanager

import torch

from crop_model.hilbert import hilbert_order
from crop_model.training_free.inside_llm import PruningConfig


def even_runs(tokens: list[int], count: int) -> list[list[int]]:
    """Cuts a list into runs whose lengths differ by one at most."""
    runs: list[list[int]] = [[] for _ in range(count)]
    for rank, token in enumerate(tokens):
        runs[rank * count // len(tokens)].append(token)
    return runs


def chosen(config: PruningConfig, curve: list[int], region: set[int], score: list[float]) -> dict[int, list[int]]:
    """Token kept -> the tokens that it stands for, of one image."""
    inside, outside = ([t for t in curve if (t in region) == wanted] for wanted in (True, False))
    t_in = min(len(inside), config.token_budget)
    groups = [(inside, t_in), (outside, config.token_budget - t_in)]
    if config.rest == "attention":
        best = [t for group, count in groups for t in sorted(group, key=lambda t: -score[t])[:count]]
        return {t: [t] for t in best}
    runs = [run for group, count in groups if count for run in even_runs(group, count)]
    return {run[len(run) // 2]: run if config.rest == "pooled" else [run[len(run) // 2]] for run in runs}


def reference_tokens(model, inputs, config: PruningConfig) -> list[dict[int, list[int]]]:
    """Of every row: place of a visual token kept -> the places that it stands for."""
    ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
    compressor, implementation = model.model.compressor, model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        attentions = model(**inputs, output_attentions=True).attentions[config.layer - 1].mean(dim=1)  # (B, S, S)
        features = model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-2][:, 1:]
    model.set_attn_implementation(implementation)
    token_of_patch = compressor.assign(inputs["region_mask"], features)  # (M, N)
    rows, image, tokens = [], 0, compressor.num_tokens
    for row in range(len(ids)):
        last = max(i for i in range(ids.shape[1]) if real[row, i])
        places = [i for i in range(ids.shape[1]) if ids[row, i] == model.config.image_token_id]
        stands_for: dict[int, list[int]] = {}
        for start in range(0, len(places), tokens):
            own = places[start : start + tokens]
            on_curve = [int(token_of_patch[image, patch]) for patch in hilbert_order(8, 8)]
            curve = list(dict.fromkeys(on_curve))  # every token where the curve meets it first
            mask = inputs["region_mask"][image]
            region = {int(token_of_patch[image, patch]) for patch in range(64) if mask[patch]}
            score = [float(attentions[row, last, place]) for place in own]
            for token, run in chosen(config, curve, region, score).items():
                stands_for[own[token]] = [own[member] for member in run]
            image += 1
        rows.append(stands_for)
    return rows


@contextmanager
def hidden(model, inputs, config: PruningConfig, beams: int = 1):
    """Layers >= K see what `reference_tokens` keeps; yields what they see of the prompt, bool (B, S)."""
    rows = [row for row in reference_tokens(model, inputs, config) for _ in range(beams)]
    ids = inputs["input_ids"].repeat_interleave(beams, dim=0)
    real = inputs["attention_mask"].bool().repeat_interleave(beams, dim=0)
    visible = real.clone()
    for row, stands_for in enumerate(rows):
        for place in range(ids.shape[1]):
            if ids[row, place] == model.config.image_token_id and place not in stands_for:
                visible[row, place] = False

    def hide(module, args, kwargs):
        length = args[0].shape[1]
        assert kwargs["past_key_values"] is None
        keys = torch.ones(len(rows), length, dtype=torch.bool)
        keys[:, : visible.shape[1]] = visible
        causal = torch.ones(length, length).tril().bool()
        mask = (causal & keys[:, None]) | torch.eye(length, dtype=torch.bool)
        return args, {**kwargs, "attention_mask": mask[:, None]}

    def average(module, args):
        states = args[0].clone()
        for row, stands_for in enumerate(rows):
            for place, run in stands_for.items():
                states[row, place] = args[0][row, run].mean(dim=0)
        return (states,)

    layers = model.model.language_model.layers
    handles = [layer.register_forward_pre_hook(hide, with_kwargs=True) for layer in layers[config.layer :]]
    handles.append(layers[config.layer].register_forward_pre_hook(average))
    try:
        yield visible
    finally:
        for handle in handles:
            handle.remove()
