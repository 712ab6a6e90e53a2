"""Every compressor type on the demo, before and after fine-tuning with three seeds each: the table of demo_methods.md.

    python tests/benchmarks/demo_methods.py [OUT]        39 trainings of about a minute, two at a time on two cores

The trainings are configs/plc/quickstart.yaml in one process, at the same global batch and with fewer steps. A finished
one is not done again.
"""

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BASE = "configs/demo_base"
STEPS = 150
SEEDS = (0, 1, 2)
BUDGETS = (85, 57, 28, 14)  # 1/3, 1/4.5, 1/9 and 1/18 of 256
ONE_NINTH = 28
AT_EVERY_BUDGET = ("region_ratio", "uniform")
AT_ONE_NINTH = ("random", "region_only", "no_anchors", "no_queries", "no_residual")
AT_A_TIME = 2

Run = tuple[str, int, int]  # compressor type, token budget, seed
Row = dict[str, Any]  # of evaluation.json


def runs() -> list[Run]:
    """What is trained: at one ninth first, seed by seed."""
    at_one_ninth = [(kind, ONE_NINTH, seed) for seed in SEEDS for kind in (*AT_EVERY_BUDGET, *AT_ONE_NINTH)]
    others = [budget for budget in BUDGETS if budget != ONE_NINTH]
    return at_one_ninth + [(kind, budget, seed) for seed in SEEDS for budget in others for kind in AT_EVERY_BUDGET]


def train_and_evaluate(out: Path, run: Run) -> list[Row]:
    """The rows of one fine-tuned model: with annotated regions, and PLC at one ninth without them too."""
    kind, budget, seed = run
    folder = out / f"{kind}-{budget}-{seed}"
    fine_tune(folder, {"compressor_type": kind, "token_budget": budget, "seed": seed})
    sources = ["oracle", "random", "global"] if (kind, budget) == ("region_ratio", ONE_NINTH) else ["oracle"]
    return evaluate(folder / "evaluation", [{"checkpoint": f"{folder}/final", "region_source": sources, "seed": seed}])


def fine_tune(folder: Path, settings: dict[str, Any]) -> None:
    """One training into `folder`, unless it is finished there."""
    if (folder / "final").is_dir():
        return
    settings = settings | {
        "output_dir": folder,
        "max_steps": STEPS,
        "max_length": 192,
        "deepspeed": "null",
        "per_device_train_batch_size": 32,
        "eval_strategy": "no",
        "save_strategy": "no",
        "picture_steps": 0,
    }
    call("train.plc", "configs/plc/quickstart.yaml", *[f"{key}={value}" for key, value in settings.items()])


def evaluate_untrained(out: Path) -> list[Row]:
    """The rows of the base as it is shipped."""
    rows: list[Row] = [{"checkpoint": BASE, "compressor_type": "none", "region_source": "global"}]
    rows += [
        {"checkpoint": BASE, "compressor_type": list(AT_EVERY_BUDGET), "token_budget": list(BUDGETS)},
        {"checkpoint": BASE, "compressor_type": list(AT_ONE_NINTH[:3]), "token_budget": ONE_NINTH},
        {"checkpoint": BASE, "compressor_type": "region_ratio", "token_budget": ONE_NINTH, "region_source": "random"},
    ]
    return evaluate(out / "untrained", rows)


def evaluate(folder: Path, rows: list[Row]) -> list[Row]:
    result = folder / "evaluation.json"
    if not result.is_file() or json.loads(result.read_text(encoding="utf-8"))["rows_left"]:
        words = [f"rows={json.dumps(rows)}", f"output_dir={folder}", "ttft_samples=0"]
        call("train.evaluate", "configs/evaluate/quickstart.yaml", *words)
    return json.loads(result.read_text(encoding="utf-8"))["rows"]


def call(module: str, *words: str) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr[-2000:]}")


def table(rows: list[Row]) -> str:
    """One line a method, budgets across: percent of answers right, mean of the seeds and their standard deviation."""
    cells = defaultdict(list)
    for row in rows:
        cells[row["method"], row["region_source"], row["trained"], row["token_budget"]].append(100 * row["accuracy"])
    (full,) = cells.pop(("none", "global", False, 256))
    lines = [f"All 256 tokens, the base as shipped: {full:.1f} % right.", ""]
    lines.append("| method | regions | fine-tuned | " + " | ".join(f"{budget} tokens" for budget in BUDGETS) + " |")
    lines.append("|---|---|---|" + "---:|" * len(BUDGETS))
    for method, source, trained in sorted({key[:3] for key in cells}, key=lambda key: (key[2], key[0], key[1])):
        shown = [_cell(cells[method, source, trained, budget]) for budget in BUDGETS]
        lines.append(f"| `{method}` | {source} | {'yes' if trained else 'no'} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo_methods")
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        found = list(pool.map(lambda run: train_and_evaluate(out, run), runs()))
    print(table([*evaluate_untrained(out), *(row for rows in found for row in rows)]))


if __name__ == "__main__":
    main()
