"""Pack many samples into a row, planned from the samples' lengths alone: no image is read and no text tokenized.

    pack_length = 12      | sample 4 (7 tokens)    | 0 (3)  | 9 (2) |     a row holds whole samples
                          | sample 2 (8 tokens)       | 5 (3)   |.|     the rest is padding
    position_ids          0 1 2 3 4 5 6              0 1 2    0 1        restart: no sample sees another

Every image costs `token_budget` tokens, so that the length of a sample is known in advance.
"""

import random
from bisect import bisect_left, insort
from collections.abc import Sequence
from typing import Any

import datasets
from torch.utils.data import Dataset

WINDOW = 4096  # samples packed together: a larger window hardly fills rows better, and mixes lengths less


def plan_rows(lengths: Sequence[int], pack_length: int, seed: int) -> list[list[int]]:
    """Assign every sample to one row of at most `pack_length` tokens: best fit, longest first, window by window.

    Args:
        lengths: tokens of every sample, none above `pack_length`.
        pack_length: tokens per row.
        seed: seed of the shuffle that decides which samples share a window.

    Returns:
        Rows of sample indices, which depend only on the arguments: they are the same for every process.
    """
    order = list(range(len(lengths)))
    random.Random(f"{seed}/rows").shuffle(order)
    rows: list[list[int]] = []
    for start in range(0, len(order), WINDOW):
        rows += _best_fit([(lengths[index], index) for index in order[start : start + WINDOW]], pack_length)
    return rows


def _best_fit(samples: list[tuple[int, int]], pack_length: int) -> list[list[int]]:
    rows: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (free tokens of a row, its number), sorted
    for length, index in sorted(samples, key=lambda sample: -sample[0]):
        index_of_best = bisect_left(free, (length, -1))
        if index_of_best < len(free):
            room, number = free.pop(index_of_best)
        else:
            room, number = pack_length, len(rows)
            rows.append([])
        rows[number].append(index)
        insort(free, (room - length, number))
    return rows


class PackedRows(Dataset):
    """Serve rows of `plan_rows` as a data set whose items are lists of samples.

    Rows without a sample complete the last global batch, so that every process has the same number of batches and no
    sample occurs twice per epoch.

    Args:
        samples: rows of `load_samples`.
        pack_length, seed: as of `plan_rows`.
        global_batch: rows of one update over all processes.
    """

    def __init__(self, samples: datasets.Dataset, pack_length: int, seed: int, global_batch: int) -> None:
        self.samples = samples
        self.rows = plan_rows(samples["length"][:], pack_length, seed)
        self.rows += [[] for _ in range(-len(self.rows) % global_batch)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> list[dict[str, Any]]:
        return self.samples.__getitems__(self.rows[number]) if self.rows[number] else []
