"""Every method on the demo at 1/3, 1/4.5, 1/9 and 1/18 of the tokens: the table of all_methods.md.

    python tests/benchmarks/all_methods.py [OUT] [trained=no]      36 trainings of about a minute, and 95 untrained rows

Fine-tuned are PLC, pooling and region_only, with three seeds, as demo_methods.py does it. ILP, FastV, VisionZip,
DivPrune and region_only draw nothing at random: one row stands for every seed. `random` draws by the image, so that it
is one row too; ILP's random regions are drawn with three seeds. The demo's LLM has three layers, and ILP acts from
layer 1 or 2 on: `pruned_tokens` counts what is left after it. Trainings and rows that are done are not done again.
"""

import json
import sys
from itertools import product
from pathlib import Path

import demo_methods
from demo_methods import BASE, BUDGETS, ONE_NINTH, SEEDS, Row

LAYERS = (1, 2)
LOCALIZER = "configs/demo_localizer"
BLIND = {"checkpoint": BASE, "region_source": "global"}
FINE_TUNED = ("region_ratio", "uniform", "region_only")


def untrained() -> list[Row]:
    """What `train.evaluate` is asked of the base as it is shipped."""
    budgets = list(BUDGETS)
    inside = {"compressor_type": "none", "pruned_tokens": budgets, "layer": list(LAYERS)}
    ilp = {"checkpoint": BASE, "method": "ilp", **inside}
    return [
        {**BLIND, "compressor_type": "none"},
        {**BLIND, "compressor_type": ["random", "uniform"], "token_budget": budgets},
        {**BLIND, "method": ["visionzip", "divprune"], "token_budget": budgets},
        {**BLIND, "method": "fastv", **inside},
        {"checkpoint": BASE, "compressor_type": ["region_only", "region_ratio"], "token_budget": budgets},
        {**ilp, "region_source": ["oracle", "global"]},
        {**ilp, "region_source": "random", "seed": list(SEEDS)},
    ]


def untrained_ilp() -> list[Row]:
    """ILP's other rules for the rest, and ILP on what PLC left."""
    budgets = list(BUDGETS)
    ilp = {"checkpoint": BASE, "method": "ilp", "layer": list(LAYERS)}
    after_plc = {**ilp, "compressor_type": "region_ratio", "token_budget": budgets[0], "pruned_tokens": budgets[1:]}
    return [
        {**ilp, "compressor_type": "none", "pruned_tokens": budgets, "rest": ["pooled", "attention"]},
        {**after_plc, "region_source": "oracle"},
    ]


def imperfect(out: Path) -> list[Row]:
    """The two that lead at one ninth, fine-tuned, with a localizer's regions; region_only with wrong ones and none."""
    rows: list[Row] = []
    for seed in SEEDS:
        plc, region_only = (f"{out}/{kind}-{ONE_NINTH}-{seed}/final" for kind in ("region_ratio", "region_only"))
        found = {"region_source": "localizer", "localizer": LOCALIZER, "seed": seed}
        rows += [{"checkpoint": plc, **found}, {"checkpoint": region_only, **found}]
        rows.append({"checkpoint": region_only, "region_source": ["random", "global"], "seed": seed})
    return demo_methods.evaluate(out / "imperfect", rows)


def main() -> None:
    words = [word for word in sys.argv[1:] if word != "trained=no"]
    out = Path(words[0] if words else "runs/all_methods").absolute()
    rows = demo_methods.evaluate(out / "untrained", untrained())
    rows += demo_methods.evaluate(out / "untrained_ilp", untrained_ilp())
    if "trained=no" not in sys.argv:
        for kind, budget, seed in product(FINE_TUNED, BUDGETS, SEEDS):
            rows += demo_methods.train_and_evaluate(out, (kind, budget, seed))
        rows += imperfect(out)
    (out / "rows.json").write_text(json.dumps(rows, indent=2), encoding="utf-8")
    print(demo_methods.table(rows))


if __name__ == "__main__":
    main()
