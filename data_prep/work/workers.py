"""Run one job in several processes, each with its share, behind one progress bar.

A worker that fails ends the run with its error, and so does one that is killed. A worker whose parent is gone stops.
Ctrl-C reaches only the parent, which ends the workers.
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
GC_THRESHOLD = 100_000  # a shard has many objects and no cycles, and the default would search for these again and again


class Progress(NamedTuple):
    """Report how far a worker has read, and what it did since its last report.

    `position` of `size` is in the stream's unit; `records` counts neither other workers' records nor finished ones.
    """

    position: int
    size: int
    records: int
    rejected: int


class Job(Protocol):
    """Define work that processes share; an instance must be picklable."""

    def run(self, worker: int, workers: int) -> Iterator[Progress]:
        """Do the share of `worker` step by step."""


def run_workers(job: Job, workers: int) -> None:
    """Run the job in `workers` processes, or in this one if `workers` is 1.

    Raises:
        DataError: raised by a worker.
        RunError: a worker was killed or met an OSError.
    """
    with _Bar(workers) as bar:
        if workers == 1:
            for progress in job.run(0, 1):
                bar.update(0, progress)
        else:
            _run_processes(job, workers, bar)


def _run_processes(job: Job, workers: int, bar: "_Bar") -> None:
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of pyarrow's threads
    reports = context.Queue()
    processes = [
        context.Process(target=_work, args=(job, worker, workers, reports, os.getpid()), daemon=True)
        for worker in range(workers)
    ]
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited by the workers
    for process in processes:
        process.start()
    signal.signal(signal.SIGINT, handler)
    try:
        running = workers
        while running:
            try:
                worker, progress = reports.get(timeout=POLL_SECONDS)
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


def _work(job: Job, worker: int, workers: int, reports: "multiprocessing.Queue", parent: int) -> None:
    """Report a worker's progress, then None, or the error that stopped it."""
    gc.set_threshold(GC_THRESHOLD)
    try:
        for progress in job.run(worker, workers):
            if os.getppid() != parent:
                return
            reports.put((worker, progress))
    except DataError as error:
        reports.put((worker, DataError(str(error))))  # subclasses with more fields cannot be pickled
    except OSError as error:
        reports.put((worker, RunError(str(error))))
    else:
        reports.put((worker, None))


class _Bar:
    """Show the position in the input, the remaining time, records and their rate since the first one, rejections."""

    def __init__(self, workers: int) -> None:
        self.positions = [0] * workers
        self.records = self.rejected = 0
        self.start = time.monotonic()

    def __enter__(self) -> "_Bar":
        self.bar = tqdm(bar_format="{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}", disable=None)
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def update(self, worker: int, progress: Progress) -> None:
        if not self.records and not progress.records:  # finished shards are being skipped
            self.start = time.monotonic()
        self.positions[worker] = progress.position
        self.records += progress.records
        self.rejected += progress.rejected
        self.bar.total = progress.size
        seconds = time.monotonic() - self.start
        rate = f"{self.records / seconds:,.0f}" if seconds else "?"
        self.bar.set_postfix_str(f"{self.records:,} records, {rate}/s, {self.rejected:,} rejected", refresh=False)
        self.bar.update(sum(self.positions) // len(self.positions) - self.bar.n)
