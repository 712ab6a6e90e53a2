"""Workers: what stops one of them is one line in the parent; the bar counts what is done now."""

import os
import queue
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from data_prep.common.errors import DataError, RunError, user_errors
from data_prep.work import workers as module
from data_prep.work.workers import Progress, _Bar, _work, run_workers


class TwoFieldError(DataError):
    """A DataError that cannot be pickled back from its message alone."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)


@dataclass(frozen=True)
class Failing:
    """Raises after one step."""

    error: Exception

    def run(self, worker: int, workers: int) -> Iterator[Progress]:
        yield Progress(1, 2, 1, 0)
        raise self.error


@dataclass(frozen=True)
class Endless:
    """Leaves a file for every worker at work, and goes on until it is ended."""

    folder: Path

    def run(self, worker: int, workers: int) -> Iterator[Progress]:
        (self.folder / str(worker)).touch()
        while True:
            time.sleep(0.05)
            yield Progress(0, 1, 0, 0)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(28, "No space left on device", "shard-00001"), RunError, "No space left on device: 'shard-00001'"),
        (TwoFieldError("schema", "a.json: bad"), DataError, "a.json: bad"),
    ],
)
def test_what_stops_a_worker_reaches_the_parent(error: Exception, kind: type, message: str) -> None:
    told: Any = queue.Queue()
    _work(Failing(error), 1, 2, told, os.getppid())
    assert told.get() == (1, Progress(1, 2, 1, 0))
    worker, found = told.get()
    assert (worker, type(found)) == (1, kind)
    assert message in str(found)


@pytest.mark.integration
def test_a_workers_os_error_is_one_line(capsys: pytest.CaptureFixture) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as caught, user_errors("prog"):
            run_workers(Failing(PermissionError(13, "Permission denied", "x")), 2)
    finally:
        handler = signal.signal(signal.SIGINT, before)
    assert caught.value.code == 1
    assert capsys.readouterr().err == "prog: error: [Errno 13] Permission denied: 'x'\n"
    assert handler is signal.default_int_handler


CALL = """
import signal
import sys
from pathlib import Path
from data_prep.common.errors import user_errors
from data_prep.work.workers import run_workers
from tests.data_prep.work.test_workers import Endless
if __name__ == "__main__":
    # not what it inherits: a script that runs the tests in its background has them ignore SIGINT
    signal.signal(signal.SIGINT, getattr(signal, sys.argv[2]))
    with user_errors("prog"):
        run_workers(Endless(Path(sys.argv[1])), 2)
"""


def start_endless(folder: Path, handler: str) -> "subprocess.Popen[str]":
    """Two workers at work, in a process group of their own."""
    script, began = folder / "call.py", folder / "began"
    script.write_text(CALL)
    began.mkdir()
    process = subprocess.Popen(
        [sys.executable, str(script), str(began), handler],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while len(list(began.iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    return process


@pytest.mark.integration
def test_ctrl_c_is_one_line_and_ends_the_workers(tmp_path: Path) -> None:
    """The terminal sends SIGINT to every process of the group."""
    process = start_endless(tmp_path, "default_int_handler")
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)  # ends when the last worker has closed stderr
    assert (process.returncode, error) == (130, "prog: interrupted\n")


@pytest.mark.integration
def test_where_ctrl_c_is_ignored_it_stays_so(tmp_path: Path) -> None:
    """A run in the background of a script outlives the Ctrl-C that ends the script's foreground."""
    process = start_endless(tmp_path, "SIG_IGN")
    os.killpg(process.pid, signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.terminate()
    _, error = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM
    assert "interrupted" not in error


def test_what_was_done_before_does_not_count_towards_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    with _Bar(2) as bar:
        for position in range(1, 6):  # 50 s of passing over shards that are there
            now += 10
            bar.update(0, Progress(position, 10, 0, 0))
        now += 2
        bar.update(1, Progress(1, 10, 600, 30))
        assert bar.bar.postfix == "600 records, 300/s, 30 rejected"
        now += 2
        bar.update(0, Progress(6, 10, 0, 0))  # another machine's shard: its time counts
        assert bar.bar.postfix == "600 records, 150/s, 30 rejected"
