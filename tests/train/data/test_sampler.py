"""The order of samples: complete, reproducible, and independent of the number of processes."""

from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from train.data.sampler import EpochSampler


def order(lengths: list[int] | None, epoch: int, count: int, batch: int = 4, seed: int = 7) -> list[int]:
    return list(EpochSampler(count, seed, lambda: epoch, lengths, batch))


@given(st.lists(st.integers(1, 99), min_size=1, max_size=60), st.integers(0, 3), st.integers(1, 9))
def test_every_sample_once_and_the_same_order_again(lengths: list[int], epoch: int, batch: int) -> None:
    for known in (lengths, None):
        drawn = order(known, epoch, len(lengths), batch)
        assert sorted(drawn) == list(range(len(lengths)))
        assert drawn == order(known, epoch, len(lengths), batch)


def test_another_epoch_or_seed_is_another_order() -> None:
    lengths = list(range(50))
    for known in (lengths, None):
        orders = [order(known, 0, 50), order(known, 1, 50), order(known, 0, 50, seed=8)]
        assert len({tuple(drawn) for drawn in orders}) == 3


def test_the_epoch_is_asked_for_when_an_iteration_starts() -> None:
    epoch = 0
    sampler = EpochSampler(20, 7, lambda: epoch)
    assert len(sampler) == 20
    first = list(sampler)
    epoch = 1
    assert list(sampler) == order(None, 1, 20) != first


@given(st.lists(st.integers(1, 99), min_size=1, max_size=8), st.sampled_from([(1, 8), (2, 4), (4, 2)]))
def test_processes_share_the_batches_of_one(seeds: list[int], split: tuple[int, int]) -> None:
    processes, size = split
    lengths = [seed * number % 97 for seed in seeds for number in range(1, 17)]
    sampler = EpochSampler(len(lengths), 1, lambda: 0, lengths, global_batch=8)
    shards = [
        list(BatchSamplerShard(BatchSampler(sampler, size, drop_last=False), processes, rank))
        for rank in range(processes)
    ]
    shared = [{index for batch in batches for index in batch} for batches in zip(*shards, strict=True)]
    assert shared == [set(batch) for batch in BatchSampler(sampler, 8, drop_last=False)]


def test_like_lengths_stand_together() -> None:
    lengths = [number * 37 % 101 for number in range(400)]

    def padding(drawn: list[int]) -> int:
        batches = [drawn[start : start + 4] for start in range(0, len(drawn), 4)]
        return sum(max(lengths[i] for i in batch) - lengths[i] for batch in batches for i in batch)

    assert padding(order(lengths, 0, 400)) < 0.2 * padding(order(None, 0, 400))
