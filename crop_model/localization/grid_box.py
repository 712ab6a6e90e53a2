"""Constrain generation to a box of the region grid.

[   1   ,   _   0   ,   _   4   ,   _   2   ]      one sign per token, as Qwen2's and Llama's tokenizers write it
    ^           ^           ^           ^          positions: of the indices among the answer's tokens
"""

from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from crop_model.regions import REGION_GRID

ANSWER = "[{}, {}, {}, {}]"

ROWS, COLUMNS = REGION_GRID


class GridBoxProcessor(LogitsProcessor):
    """Let `generate` write `ANSWER` with indices of the grid, min <= max, and nothing else.

    Args:
        tokenizer: writes every index of the grid as one token; ValueError if it does not.
        prompt_length: tokens before the answer, padding included.
    """

    def __init__(self, tokenizer: Any, prompt_length: int):
        texts = [ANSWER.format(*[i] * 4) for i in range(max(REGION_GRID))]
        answers = tokenizer(texts, add_special_tokens=False)["input_ids"]
        columns = list(zip(*answers, strict=False))
        self.positions = [position for position, column in enumerate(columns) if len(set(column)) > 1]
        distinct = all(len(set(columns[position])) == len(answers) for position in self.positions)
        if len({len(answer) for answer in answers}) > 1 or len(self.positions) != 4 or not distinct:
            raise ValueError("tokenizer: it does not write every grid index as one token")
        table = torch.tensor(answers)  # (8, A): one row per index
        self.fixed = table[0]  # (A,)
        self.index_ids = table[:, self.positions].T  # (4, 8): the tokens of each index, at each position
        self.prompt_length = prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Set the scores (B, V) of all tokens but those that may come next to minus infinity."""
        step = input_ids.shape[1] - self.prompt_length
        allowed = torch.zeros_like(scores, dtype=torch.bool)
        if step in self.positions:
            number = self.positions.index(step)
            last = COLUMNS if number % 2 == 0 else ROWS
            ids = self.index_ids[number].to(scores.device)  # (8,)
            index = torch.arange(len(ids), device=scores.device)
            least = self.indices(input_ids)[:, number - 2, None] if number >= 2 else 0  # not before the minimum
            allowed[:, ids] = ((index >= least) & (index < last)).expand(len(scores), -1)
        else:
            allowed[:, self.fixed[step]] = True
        finite = scores.nan_to_num()  # an allowed token must stay above minus infinity, whatever the model computes
        return finite.masked_fill(~allowed, float("-inf"))

    def indices(self, input_ids: Tensor) -> Tensor:
        """Read the indices that an answer has so far: int64 (B, up to 4)."""
        written = input_ids[:, self.prompt_length :]
        indices = [
            (written[:, position, None] == self.index_ids[number].to(written.device)).int().argmax(dim=1)
            for number, position in enumerate(self.positions)
            if position < written.shape[1]
        ]
        return torch.stack(indices, dim=1)
