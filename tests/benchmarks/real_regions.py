"""Training on annotated regions against training on such as use brings: the table of real_regions.md.

    python tests/benchmarks/real_regions.py [OUT]        6 trainings of about a minute

The trainings are those of demo_methods.py. `oracle`: annotated regions alone. `real`: annotated boxes jittered, in half
of the draws the localizer's own for that question, in one of ten none. Both are asked with each region source.
"""

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from demo_methods import BASE, ONE_NINTH, SEEDS, Row, call, evaluate, fine_tune

DATA = "runs/quickstart/data"
LOCALIZER = "configs/demo_localizer"
SOURCES = ("localizer", "oracle", "random", "global")


def located(out: Path) -> Path:
    """The localizer's region of every training question."""
    folder, exported = out / "located", out / "localizer"
    if not folder.is_dir():
        call("train.export", LOCALIZER, str(exported))
        words = [f"localizer={exported}", f"image_root={DATA}/images", "rows=all", "batch_size=64"]
        call("data_prep.localize", f"{DATA}/regions/train", str(folder), *words)
    return folder


def rows_of(out: Path, name: str, settings: dict, seed: int) -> list[Row]:
    folder = out / f"{name}-{seed}"
    fine_tune(folder, {"compressor_type": "region_ratio", "token_budget": ONE_NINTH, "seed": seed, **settings})
    return ask(folder, f"{folder}/final", seed)


def ask(folder: Path, checkpoint: str, seed: int) -> list[Row]:
    """Its rows with every region source."""
    asked = {"checkpoint": checkpoint, "compressor_type": "region_ratio", "token_budget": ONE_NINTH, "seed": seed}
    others = {**asked, "region_source": [source for source in SOURCES if source != "localizer"]}
    by_localizer = {**asked, "region_source": "localizer", "localizer": LOCALIZER}
    return evaluate(folder / "evaluation", [by_localizer, others])


def table(found: dict[str, list[Row]], full: float) -> str:
    """One line a training, region sources across: percent of the full-token model's accuracy."""
    lines = ["| trained on | " + " | ".join(f"{source} regions" for source in SOURCES) + " |"]
    lines.append("|---|" + "---:|" * len(SOURCES))
    for name, rows in found.items():
        values = defaultdict(list)
        for row in rows:
            values[row["region_source"]].append(100 * row["accuracy"] / full)
        lines.append(f"| {name} | " + " | ".join(_cell(values[source]) for source in SOURCES) + " |")
    return "\n".join(lines)


def _cell(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def main() -> None:
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/real_regions").absolute()
    (full,) = evaluate(out / "full", [{"checkpoint": BASE, "compressor_type": "none", "region_source": "global"}])
    real = {
        "region_jitter": 0.5,
        "localizer_regions": json.dumps([str(located(out))]),
        "localizer_probability": 0.5,
        "global_probability": 0.1,
    }
    found = {
        "nothing": ask(out / "untrained", BASE, 0),
        "annotated regions": [row for seed in SEEDS for row in rows_of(out, "oracle", {}, seed)],
        "jittered, predicted and no regions": [row for seed in SEEDS for row in rows_of(out, "real", real, seed)],
    }
    (out / "rows.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    print(table(found, full["accuracy"]))


if __name__ == "__main__":
    main()
