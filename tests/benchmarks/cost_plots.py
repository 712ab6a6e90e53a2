"""Draws the pictures of docs/cost.md: what LLaVA-1.5-7B costs by formula. Nothing is run or measured.

python tests/benchmarks/cost_plots.py            writes docs/images/cost_*.png, and prints the table of docs/cost.md
"""

from pathlib import Path

import torch
from cost_of_questions import Kept, macs_of_questions
from llava_sizes import PATCHES, llava_config
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from crop_model.allocation import allocate
from crop_model.cost.model import ModelShape
from crop_model.training_free.base import TrainingFreeMethod
from crop_model.training_free.divprune import DivPrune
from crop_model.training_free.inside_llm import PruningConfig
from crop_model.training_free.visionzip import VisionZip

IMAGES = Path(__file__).parents[2] / "docs" / "images"
TEXT, LAYER, REGION_RATIO = 150, 2, 16.0
BUDGETS = (192, 128, 64)
TERA = 1e12
# Okabe and Ito's colours, told apart by the colour-blind
BLUE, VERMILION, GREEN, PURPLE, BLACK = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000"


def llava_7b(compressor_type: str = "none", budget: int = PATCHES) -> ModelShape:
    """What LLaVA-1.5-7B costs."""
    return ModelShape.from_config(llava_config("7b", compressor_type, budget))


def against_budget() -> Figure:
    """TFLOPs of a prefill, and bytes of its cache, for every way to spend a budget."""
    figure, (left, right) = panels()
    budgets, full = list(range(8, PATCHES + 1, 8)), llava_7b()
    ways = {
        "PLC": (BLUE, "-", [llava_7b("region_ratio", b) for b in budgets], None),
        "VisionZip, at its default split": (GREEN, "--", [llava_7b("random", b) for b in budgets], None),
        "ILP from layer 2": (VERMILION, "-.", [full for _ in budgets], LAYER),
        "ILP from layer 8": (PURPLE, ":", [full for _ in budgets], 8),
    }
    for name, (colour, line, shapes, layer) in ways.items():
        prunings = [None if layer is None else PruningConfig(layer, b) for b in budgets]
        method = VisionZip() if name.startswith("VisionZip") else TrainingFreeMethod()
        pairs = list(zip(shapes, prunings, strict=True))
        flops = [2 * (shape.prefill(TEXT, 1, pruning).total + method.macs(shape)) / TERA for shape, pruning in pairs]
        cache = [shape.kv_bytes(TEXT, pruning=pruning) / 1e6 for shape, pruning in pairs]
        left.plot(budgets, flops, line, color=colour, label=name)
        right.plot(budgets, cache, line, color=colour, label=name)
    left.set_ylabel("TFLOPs to the first token")
    right.set_ylabel("KV cache after prefill, MB (fp16)")
    for axes in (left, right):
        finish(axes, "token budget (of 576; ILP: after its layer)")
    return figure


def against_region() -> Figure:
    """A fixed budget costs the same whatever the region; what grows is how much of the region shares its tokens."""
    figure, (left, right) = panels()
    inside = torch.arange(9, PATCHES, 9)
    share = (100 * inside / PATCHES).tolist()
    for budget, colour, line in zip(BUDGETS, (BLUE, VERMILION, GREEN), ("-", "--", "-."), strict=True):
        flops = llava_7b("region_ratio", budget).prefill(TEXT).flops / TERA
        t_in, _ = allocate(inside, PATCHES - inside, budget, REGION_RATIO)
        left.plot(share, [flops] * len(share), line, color=colour, label=f"PLC, {budget} tokens")
        right.plot(share, (inside / t_in).tolist(), line, color=colour, label=f"PLC, {budget} tokens")
    left.set_ylim(bottom=0)
    left.set_ylabel("TFLOPs to the first token")
    right.set_ylabel("region's patches in each of its tokens")
    for axes in (left, right):
        finish(axes, "region, % of the image")
    return figure


def against_questions() -> Figure:
    """TFLOPs a question, of many about one image, for a short and a long question."""
    figure, both = panels()
    questions = [2**n for n in range(8)]
    full, plc, pooled = llava_7b(), llava_7b("region_ratio", 64), llava_7b("uniform", 64)
    pruning = PruningConfig(LAYER, 64)
    ways: list[tuple[str, str, str, ModelShape, Kept, PruningConfig | None]] = [
        ("all 576 tokens, nothing kept", BLACK, "-", full, "nothing", None),
        ("all 576 tokens, their KV cache kept", BLACK, ":", full, "cache", None),
        ("PLC, 64 tokens, nothing kept", BLUE, "-", plc, "nothing", None),
        ("PLC, 64 tokens, tower kept", BLUE, "--", plc, "tower", None),
        ("ILP, 64 tokens from layer 2, tower kept", VERMILION, "--", full, "tower", pruning),
        ("pooling, 64 tokens, KV cache kept", GREEN, ":", pooled, "cache", None),
    ]
    for axes, text in zip(both, (40, TEXT), strict=True):
        for name, colour, line, shape, kept, pruned in ways:
            cost = [2 * macs_of_questions(shape, text, q, kept, pruned) / q / TERA for q in questions]
            axes.plot(questions, cost, line, color=colour, label=name)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_ylim(bottom=0)
        axes.set_ylabel("TFLOPs a question")
        axes.set_title(f"questions of {text} tokens", fontsize="medium")
        finish(axes, "questions about one image")
    return figure


def panels() -> tuple[Figure, tuple[Axes, Axes]]:
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    return figure, (left, right)


def finish(axes: Axes, label: str) -> None:
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="x-small")


def table() -> str:
    """Cost of every method at 64 of 576 tokens."""
    full, chosen, pruning = llava_7b(), llava_7b("random", 64), PruningConfig(LAYER, 64)
    lines = ["| method | TFLOPs | first token sooner, at most | KV cache, MB |", "|---|---:|---:|---:|"]
    plain = TrainingFreeMethod()
    ways: list[tuple[str, ModelShape, PruningConfig | None, TrainingFreeMethod]] = [
        ("all 576 tokens", full, None, plain),
        ("PLC", llava_7b("region_ratio", 64), None, plain),
        ("pooling (`uniform`)", llava_7b("uniform", 64), None, plain),
        ("`random`, `region_only`", chosen, None, plain),
        ("VisionZip", chosen, None, VisionZip()),
        ("DivPrune", chosen, None, DivPrune()),
        ("ILP, thinned", full, pruning, plain),
        ("ILP, pooled", full, PruningConfig(LAYER, 64, "pooled"), plain),
        ("FastV", full, PruningConfig(LAYER, 64, "attention"), plain),
    ]
    for name, shape, pruned, method in ways:
        flops = 2 * (shape.prefill(TEXT, 1, pruned).total + method.macs(shape))
        sooner = full.prefill(TEXT).flops / flops
        cache = shape.kv_bytes(TEXT, pruning=pruned) / 1e6
        lines.append(f"| {name} | {flops / TERA:.2f} | {sooner:.2f} | {cache:.0f} |")
    return "\n".join(lines)


def main() -> None:
    for figure in (against_budget, against_region, against_questions):
        figure().savefig(IMAGES / f"cost_{figure.__name__}.png", dpi=90)
    print(table())


if __name__ == "__main__":
    main()
