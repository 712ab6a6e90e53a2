"""Order training samples as a function of seed and epoch alone.

Every process therefore draws the same order, a resumed run continues with exactly the next samples, and a run on more
processes with the same global batch sees the same batches.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices


@dataclass(eq=False)
class EpochSampler(Sampler[int]):
    """Draw a new order every epoch.

    Args:
        count: number of samples.
        seed: seed of the order, together with the epoch.
        epoch: returns the current epoch when an iteration starts.
        lengths: group samples of similar length; None: a plain shuffle.
        global_batch: samples of one update over all processes, the unit in which `lengths` are grouped.
    """

    count: int
    seed: int
    epoch: Callable[[], int]
    lengths: Sequence[int] | None = None
    global_batch: int = 1

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        # not seed + epoch: the second epoch of a run would be the first of the run with the next seed
        generator = torch.Generator().manual_seed(random.Random(f"{self.seed}/{self.epoch()}").getrandbits(63))
        if self.lengths is None:
            return iter(torch.randperm(self.count, generator=generator).tolist())
        return iter(get_length_grouped_indices(list(self.lengths), self.global_batch, generator=generator))
