"""Make boards for training the demo's base model: one image and several questions, each in its own branch.

    <s> USER: <image> | question 1 ASSISTANT: answer 1 </s> | question 2 ASSISTANT: answer 2 </s> | ...

A branch sees the image and itself, and its positions follow the image's, exactly as if it were the only question.
"""

from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import LlavaProcessor

from data_prep.boards.questions import KINDS, BoardQuestion, ask
from data_prep.boards.scenes import CELL_NAMES, COLOURS, LONG_SIDE, Scene, cell_name, compose, load_scans, render

from .base_model import GRID, PATCH_WORDS


class Boards(Dataset):
    """Make board number i of a split: pixels (3, H, W), question ids, labels and kinds, and what each patch shows."""

    kinds = tuple(KINDS)

    def __init__(self, split: str, size: int, questions: int, processor: LlavaProcessor, seed: int = 0) -> None:
        self.scans = load_scans(split)
        self.size = size
        self.questions = questions
        self.processor = processor
        self.seed = seed
        self.references = set(processor.tokenizer.convert_tokens_to_ids([*CELL_NAMES, *COLOURS]))

    def __len__(self) -> int:
        return self.size

    def ask(self, rng: np.random.Generator, scene: Scene) -> list[BoardQuestion]:
        """Draw `questions` different questions about a board."""
        return ask(rng, scene, self.questions)

    def __getitem__(self, number: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, number])
        scene = compose(rng, self.scans)
        questions = self.ask(rng, scene)
        image = render(scene, self.scans, rng)
        return {
            "pixel_values": self.processor.image_processor(image, return_tensors="pt")["pixel_values"][0],
            "branches": [self._branch(question) for question in questions],
            "kinds": [self.kinds.index(question.kind) for question in questions],
            "shown": shown_words(scene),
        }

    def _branch(self, question: BoardQuestion) -> tuple[list[int], list[int], list[int]]:
        """Return token ids after `<image>`; labels, -100 outside the answer; a cell's digit at a word that names it."""
        messages = [
            {"role": "user", "content": f"<image>\n{question.text}"},
            {"role": "assistant", "content": question.answer},
        ]
        tokenizer = self.processor.tokenizer
        encoded = tokenizer.apply_chat_template(
            messages,
            chat_template=self.processor.chat_template,
            tokenize=True,
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        ids, mask = encoded["input_ids"], encoded["assistant_masks"]
        start = ids.index(self.processor.image_token_id) + 1
        labels = [token if answered else -100 for token, answered in zip(ids, mask, strict=True)]
        digits = iter(tokenizer.convert_tokens_to_ids([str(digit) for digit in question.digits]))
        # a question about the whole image names a colour, but no digit
        references = [next(digits, -100) if token in self.references else -100 for token in ids]
        return ids[start:], labels[start:], references[start:]


def shown_words(scene: Scene) -> torch.Tensor:
    """Mark which of `PATCH_WORDS` each patch shows, (GRID * GRID, words) bool.

    A cell has two patches per side; padding to a square puts an equal margin on both sides of the shorter one.
    """
    shown = torch.zeros(GRID, GRID, len(PATCH_WORDS), dtype=torch.bool)
    for cell in np.ndindex(scene.rows, scene.columns):
        words = [cell_name(cell), *([scene.frames[cell]] if cell in scene.frames else [])]
        words += ["panel"] * scene.in_panel(cell)
        words += [str(scene.digit[cell])] * bool(scene.digit[cell] >= 0)
        top, left = LONG_SIDE - scene.rows + 2 * cell[0], LONG_SIDE - scene.columns + 2 * cell[1]
        shown[top : top + 2, left : left + 2, [PATCH_WORDS.index(word) for word in words]] = True
    return shown.flatten(0, 1)


class BoardCollator:
    """Put the branches of an image behind one shared prefix, with the mask that separates them.

    Args:
        processor: the model's.
        spread: put visual tokens at random distances, closer than usual. A position then no longer identifies a cell:
            the model must read it from a token's content, as it must if fewer tokens represent an image.
    """

    def __init__(self, processor: LlavaProcessor, spread: bool = False) -> None:
        tokenizer = processor.tokenizer
        self.spread = spread
        self.pad, image = tokenizer.pad_token_id, processor.image_token_id
        self.prefix = [*tokenizer("USER:")["input_ids"], *[image] * (GRID * GRID)]

    def __call__(self, boards: list[dict[str, Any]]) -> dict[str, Any]:
        longest = len(self.prefix) + max(sum(len(ids) for ids, _, _ in board["branches"]) for board in boards)
        shape = (len(boards), longest)
        input_ids = torch.full(shape, self.pad)
        labels, references = torch.full(shape, -100), torch.full(shape, -100)
        branch, positions = torch.full(shape, -1), torch.zeros(shape, dtype=torch.long)
        for row, board in enumerate(boards):
            end = len(self.prefix)
            input_ids[row, :end], branch[row, :end] = torch.tensor(self.prefix), 0
            positions[row, :end] = self._prefix_positions()
            after = int(positions[row, end - 1]) + 1
            for number, (ids, targets, digits) in enumerate(board["branches"], start=1):
                span = slice(end, end + len(ids))
                input_ids[row, span], labels[row, span] = torch.tensor(ids), torch.tensor(targets)
                references[row, span], branch[row, span] = torch.tensor(digits), number
                positions[row, span] = torch.arange(after, after + len(ids))
                end = span.stop
        causal = torch.ones(longest, longest, dtype=torch.bool).tril()
        seen = causal & ((branch[:, None, :] == 0) | (branch[:, None, :] == branch[:, :, None]))  # (B, L, L)
        return {
            "pixel_values": torch.stack([board["pixel_values"] for board in boards]),
            "input_ids": input_ids,
            "labels": labels,
            "references": references,
            "branch": branch,
            "position_ids": positions,
            "attention_mask": seen[:, None],  # (B, 1, L, L)
            "kinds": torch.tensor([board["kinds"] for board in boards]),
            "shown": torch.stack([board["shown"] for board in boards]),
        }

    def _prefix_positions(self) -> torch.Tensor:
        """Return consecutive positions; with `spread`, a random share of the tokens repeats its neighbour's."""
        if not self.spread:
            return torch.arange(len(self.prefix))
        share = 0.1 + 0.9 * torch.rand(())
        return (torch.rand(len(self.prefix)) < share).long().cumsum(dim=0)
