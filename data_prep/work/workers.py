"""The same job in several processes, each doing its share, with one progress bar.

A worker that fails ends the run with its error; one that is killed ends it too. A worker whose parent is gone stops.
Ctrl-C reaches the parent alone, which ends the workers.
"""

import gc
import multiprocessing
import os
import queue
import signal
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from tqdm import tqdm

from data_prep.common.errors import DataError, RunError

POLL_SECONDS = 1.0
GC_THRESHOLD = 100_000  # a shard is many objects and no cycles, which the default would search again and again


class Progress(NamedTuple):
    """How far a worker has read, and what it did since it last told.

    `position` of `size` is in the stream's unit; `records` leaves out what others do and what was done before.
    """

    position: int
    size: int
    records: int
    rejected: int


class Job(Protocol):
    """Work that `workers` processes share; must be picklable."""

    def run(self, worker: int, workers: int) -> Iterator[Progress]:
        """Does a share, step by step."""


def run_workers(job: Job, workers: int) -> None:
    """Runs the job in `workers` processes, in this one where it is one.

    Raises:
        DataError: as a worker raised it.
        RunError: a worker was killed, or met an OSError.
    """
    with _Bar(workers) as bar:
        if workers == 1:
            for progress in job.run(0, 1):
                bar.update(0, progress)
        else:
            _run_processes(job, workers, bar)


def _run_processes(job: Job, workers: int, bar: "_Bar") -> None:
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of pyarrow's threads
    told = context.Queue()
    processes = [
        context.Process(target=_work, args=(job, worker, workers, told, os.getpid()), daemon=True)
        for worker in range(workers)
    ]
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as the workers have it from their first moment
    for process in processes:
        process.start()
    signal.signal(signal.SIGINT, handler)
    try:
        running = workers
        while running:
            try:
                worker, progress = told.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if dead := [process.exitcode for process in processes if process.exitcode]:
                    raise RunError(f"a worker died (exit code {dead[0]}); what it finished stays, run again") from None
                continue
            if isinstance(progress, Exception):
                raise progress
            if progress is None:
                running -= 1
            else:
                bar.update(worker, progress)
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _work(job: Job, worker: int, workers: int, told: "multiprocessing.Queue", parent: int) -> None:
    """The life of a worker: progress, then None; or what stopped it."""
    gc.set_threshold(GC_THRESHOLD)
    try:
        for progress in job.run(worker, workers):
            if os.getppid() != parent:
                return
            told.put((worker, progress))
    except DataError as error:
        told.put((worker, DataError(str(error))))  # subclasses with more fields cannot be pickled
    except OSError as error:
        told.put((worker, RunError(str(error))))
    else:
        told.put((worker, None))


class _Bar:
    """Place in the input, time left, records and their rate since the first one, rejections."""

    def __init__(self, workers: int) -> None:
        self.places = [0] * workers
        self.records = self.rejected = 0
        self.start = time.monotonic()

    def __enter__(self) -> "_Bar":
        self.bar = tqdm(bar_format="{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}", disable=None)
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def update(self, worker: int, progress: Progress) -> None:
        if not self.records and not progress.records:  # passing over what was done before
            self.start = time.monotonic()
        self.places[worker] = progress.position
        self.records += progress.records
        self.rejected += progress.rejected
        self.bar.total = progress.size
        seconds = time.monotonic() - self.start
        rate = f"{self.records / seconds:,.0f}" if seconds else "?"
        self.bar.set_postfix_str(f"{self.records:,} records, {rate}/s, {self.rejected:,} rejected", refresh=False)
        self.bar.update(sum(self.places) // len(self.places) - self.bar.n)
