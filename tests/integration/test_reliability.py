"""A short sample of tests/benchmarks/reliability.py: two processes, SIGKILL while a checkpoint is written and later.

tests/train/test_resume.py shows that a lost state is seen; here, that the script's comparison sees a changed one.
"""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "benchmarks" / "reliability.py"
pytestmark = pytest.mark.integration


def test_killed_runs_end_as_the_undisturbed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["kills=2", "presets=[zero2]", "max_steps=20"]
    finished = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), *words],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert finished.returncode == 0, (finished.stdout + finished.stderr)[-3000:]
    result = json.loads((tmp_path / "reliability.json").read_text())
    assert (result["kills"], result["differences"]) == (2, [])
    assert result["kills_while_saving"] >= 1

    monkeypatch.syspath_prepend(SCRIPT.parent)  # as it is when the script is started
    reliability = importlib.import_module(SCRIPT.stem)
    chain, reference = tmp_path / "chain-0", tmp_path / "undisturbed-zero2"
    assert list(reliability.different_files(chain / "checkpoint-20", reference / "checkpoint-20")) == []
    state = next((chain / "checkpoint-20").glob("*/*rank_1*optim_states.pt"))
    content = torch.load(state, weights_only=False)
    moments = next(tensor for name, tensor in reliability.leaves(content) if name.endswith("exp_avg"))
    moments.view(-1)[0] += 1e-7
    torch.save(content, state)
    (found,) = reliability.different_files(chain / "checkpoint-20", reference / "checkpoint-20")
    assert found.endswith("exp_avg differs")
