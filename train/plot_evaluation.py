"""Draw the Pareto front of an evaluation: accuracy against visual tokens, and against the time to the first token.

    python -m train.plot_evaluation runs/x/evaluation.json [more.json ...] out.png        or .svg, .pdf

There is one line per method, regions and fine-tuning. Rows that differ only in their seed become one point, their mean,
with a bar of one standard deviation. The dashed staircase joins the points that no other beats at the same cost. Needs
matplotlib: `pip install -e '.[plots]'`.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from data_prep.common.command_line import command
from data_prep.common.fill import Checked
from train.evaluation.report import read_evaluation

# Okabe and Ito's colours, which the colour-blind can distinguish; with ten markers no two lines are alike
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vP*Xh<"
COSTS = {"visual_tokens": "visual tokens per image, mean over LLM layers", "ttft_s": "time to the first token, ms"}


@dataclass(frozen=True)
class PlotArguments(Checked):
    """Define the evaluations to draw, and the picture."""

    evaluations: list[str] = field(metadata={"help": "Files of train.evaluate, evaluation.json."})
    picture: str = field(metadata={"help": "File to write: .png, .svg or .pdf."})

    def mistakes(self) -> Iterator[str]:
        if Path(self.picture).suffix not in (".png", ".svg", ".pdf"):
            yield f"picture: {self.picture}: a picture ends in .png, .svg or .pdf"


@dataclass(frozen=True)
class Point:
    """Hold the mean of rows that differ only in their seed."""

    cost: float
    accuracy: float  # percent, mean
    spread: float  # standard deviation; 0 for one row


def points_by_line(rows: Sequence[Mapping[str, Any]], cost: str) -> dict[str, list[Point]]:
    """Return the points of every line of a picture, by rising cost; rows without that cost are skipped.

    Args:
        rows: rows of evaluation.json.
        cost: a key of `COSTS`.
    """
    alike: dict[tuple[str, int], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row[cost] is not None:
            tuned = ", fine-tuned" if row["trained"] else ""
            alike[f"{row['method']}, {row['region_source']}{tuned}", row["token_budget"]].append(row)
    lines: dict[str, list[Point]] = defaultdict(list)
    for (name, _), same in alike.items():
        accuracy = [100 * row["accuracy"] for row in same]
        spread = statistics.stdev(accuracy) if len(same) > 1 else 0.0
        lines[name].append(Point(statistics.mean(row[cost] for row in same), statistics.mean(accuracy), spread))
    return {name: sorted(points, key=lambda point: point.cost) for name, points in lines.items()}


def pareto(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other beats, with equal or lower cost and higher accuracy, by rising cost."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def draw(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw one panel for every measured cost."""
    names = sorted(points_by_line(rows, "visual_tokens"))
    styles = {name: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, name in enumerate(names)}
    costs = [cost for cost in COSTS if points_by_line(rows, cost)]
    figure = Figure(figsize=(5.5 * len(costs), 4.2 + 0.09 * len(names)), layout="constrained")
    for axes, cost in zip(figure.subplots(1, len(costs), squeeze=False)[0], costs, strict=True):
        _draw_panel(axes, points_by_line(rows, cost), 1000 if cost == "ttft_s" else 1, styles)
        axes.set_xlabel(COSTS[cost])
        axes.set_ylabel("correct answers, %")
    if "visual_tokens" in costs:
        figure.axes[0].set_xscale("log", base=2)
        figure.axes[0].xaxis.set_major_formatter(ScalarFormatter())
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2 * len(costs), fontsize="x-small")
    figure.suptitle(title)
    return figure


def _draw_panel(
    axes: Axes, lines: Mapping[str, Sequence[Point]], unit: float, styles: Mapping[str, tuple[str, str]]
) -> None:
    for name in sorted(lines):
        colour, marker = styles[name]
        costs, accuracies, spreads = zip(
            *((unit * point.cost, point.accuracy, point.spread) for point in lines[name]), strict=True
        )
        style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5, "linewidth": 1, "capsize": 2}
        axes.errorbar(costs, accuracies, spreads, label=name, **style)
    front = pareto([point for points in lines.values() for point in points])
    costs, accuracies = zip(*((unit * point.cost, point.accuracy) for point in front), strict=True)
    axes.step(costs, accuracies, "--", where="post", color="grey")
    axes.grid(alpha=0.3)


@command("train.plot_evaluation", PlotArguments, positionals=("evaluations...", "picture"))
def main(arguments: PlotArguments) -> None:
    """Draw accuracy against visual tokens, and against the time to the first token."""
    results = [read_evaluation(path) for path in arguments.evaluations]
    rows = [row for result in results for row in result["rows"]]
    draw(rows, results[0]["dataset"]).savefig(arguments.picture, dpi=110)
    print(arguments.picture)


if __name__ == "__main__":
    main()
