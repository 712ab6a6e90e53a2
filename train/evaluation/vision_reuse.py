"""Share the vision tower's output among the questions of a batch about one image."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling


@contextmanager
def each_image_once(vision_tower: nn.Module) -> Iterator[None]:
    """Run an image that follows itself in a batch through the vision tower once."""
    indices: list[Tensor] = []  # for each image of the batch, its number among those that the tower sees

    def shrink(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        (pixel_values,) = inputs  # (B, 3, S, S)
        is_new = torch.tensor([True, *(not torch.equal(a, b) for a, b in pairwise(pixel_values))])
        indices.append(is_new.cumsum(dim=0).to(pixel_values.device) - 1)  # (B,)
        return (pixel_values[is_new.to(pixel_values.device)],)

    def expand(module: nn.Module, inputs: tuple[Tensor], output: BaseModelOutputWithPooling) -> None:
        index = indices.pop()
        output.hidden_states = tuple(states[index] for states in output.hidden_states)  # (B, N + 1, D) each
        output.last_hidden_state, output.pooler_output = output.last_hidden_state[index], None

    with vision_tower.register_forward_pre_hook(shrink), vision_tower.register_forward_hook(expand):
        yield
