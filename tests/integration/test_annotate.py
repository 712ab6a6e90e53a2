"""`python -m data_prep.annotate` as a user runs it: two processes, killed together, killed apart, run again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.integration

RECORDS = 40_000  # four shards
DEADLINE = 60.0  # seconds that a shard or the end of a process may take


def start(folder: Path, out: str, workers: int) -> "subprocess.Popen[bytes]":
    words = ["source=visual_cot", f"annotations={folder / 'cot.jsonl'}", "images=trust", f"out={folder / out}"]
    command = [sys.executable, "-m", "data_prep.annotate", *words, "--workers", str(workers)]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finished(process: "subprocess.Popen[bytes]") -> str:
    output, errors = process.communicate(timeout=10 * DEADLINE)
    assert process.returncode == 0, errors.decode()
    return output.decode()


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_two_processes_killed_and_run_again(tmp_path: Path) -> None:
    with (tmp_path / "cot.jsonl").open("w") as file:
        for number in range(RECORDS):
            record = {"question": f"What is {number}?", "answer": "a", "image": "a.jpg", "width": 640, "height": 480}
            file.write(json.dumps(record | {"bboxs": [[number % 600, 7, 630, 470]], "dataset": "gqa"}) + "\n")
    assert "40,000 questions" in finished(start(tmp_path, "undisturbed", workers=1))

    work = tmp_path / "regions.work"
    together = start(tmp_path, "regions", workers=2)
    wait_for(lambda: len(list(work.glob("shard-*.parquet"))) >= 1)
    os.killpg(together.pid, signal.SIGKILL)
    together.wait()

    apart = start(tmp_path, "regions", workers=2)
    wait_for(lambda: len(psutil.Process(apart.pid).children()) >= 2 or apart.poll() is not None)
    workers = psutil.Process(apart.pid).children()
    apart.kill()  # the parent alone: its workers have to notice
    apart.wait()
    _, alive = psutil.wait_procs(workers, timeout=DEADLINE)
    assert not alive

    finished(start(tmp_path, "regions", workers=2))
    assert content(tmp_path / "regions") == content(tmp_path / "undisturbed")
    assert not work.exists()
    assert "complete, nothing to do" in finished(start(tmp_path, "regions", workers=2))
