"""An evaluation that two processes share, after one process was stopped in it, is the one that one process makes."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from train.evaluate import main
from train.evaluation.evaluator import Evaluator
from train.evaluation.prediction import Prediction

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.integration


def stop_after_one_batch(words: Sequence[str], out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Evaluator._answer

    def once(self: Evaluator, indices: Sequence[int]) -> list[Prediction]:
        if list(out.glob("answers/*/*.jsonl")):
            raise KeyboardInterrupt
        return answer(self, indices)

    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "_answer", once)
        with pytest.raises(SystemExit):
            main([*words, f"output_dir={out}"])


def test_two_processes_answer_as_one(
    tiny_crop_llava: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {
        "annotations": str(toy_data / "data.json"),
        "image_root": str(toy_data / "images"),
        "regions": str(toy_data / "regions" / "toy"),
    }
    row = {"checkpoint": str(tiny_crop_llava), "region_source": ["oracle", "random"]}
    words = [f"rows=[{json.dumps(row)}]", f"eval_data=[{json.dumps(source)}]", "batch_size=3", "max_new_tokens=2"]
    main([*words, f"output_dir={tmp_path / 'one'}"])
    stop_after_one_batch(words, tmp_path / "two", monkeypatch)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "--module", "train.evaluate"]
    done = subprocess.run(
        [sys.executable, *launcher, *words, f"output_dir={tmp_path / 'two'}", "resume=true"],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = {name: json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("one", "two")}
    assert [results[name]["environment"]["processes"] for name in ("one", "two")] == [1, 2]
    for path in (tmp_path / "one").glob("predictions-*.jsonl"):
        assert path.read_text() == (tmp_path / "two" / path.name).read_text()
    assert [row["accuracy"] for row in results["one"]["rows"]] == [row["accuracy"] for row in results["two"]["rows"]]
