"""Write a Markdown table of what methods retain of the full-token model: ours from evaluation.json, and published rows.

    python -m train.leaderboard leaderboard.md 'evaluations=[runs/a/evaluation.json, runs/b/evaluation.json]'

    | method | regions | 192 | 128 | 64 | 32 | source |      budgets are visual tokens per image

Each row names its source. Rows of two sources differ in benchmarks, splits and code: the table does not average them.
Our rows of several seeds become one row, their mean.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.common.atomic import write_atomically
from data_prep.common.command_line import command, read_yaml
from data_prep.common.errors import ConfigError
from data_prep.common.fill import Checked, key
from data_prep.common.markdown import markdown_table
from train.evaluation.report import read_evaluation

PUBLISHED = "configs/leaderboard/llava-1.5-7b.yaml"
ROW_KEYS = {"method", "kind", "kept", "source"}
NOTE = (
    "Published rows are their sources' numbers, not measured here. The benchmarks behind an average, their splits and "
    "the code that scores them differ by source: compare rows of one source. In brackets a 95 % bootstrap interval "
    "over questions; ± the standard deviation over seeds. Budgets of methods that prune inside the LLM count tokens "
    "after pruning."
)
BudgetCells = dict[int, str]  # cells by budget


@dataclass(frozen=True)
class LeaderboardArguments(Checked):
    """Define the rows of the table."""

    out: str = field(metadata={"help": "The Markdown file to write."})
    evaluations: list[str] = key(list, "Files of train.evaluate, evaluation.json.")
    published: str | None = key(PUBLISHED, "A YAML of published rows, see configs/leaderboard; null: none.")

    def mistakes(self) -> Iterator[str]:
        if not self.evaluations and self.published is None:
            yield "evaluations: neither these nor published rows, nothing to print"


def our_lines(path: str) -> dict[tuple[str, str], BudgetCells]:
    """Return the cells at each budget, by method and region source, for the rows of one evaluation.

    A row with a bootstrap shows its interval; several seeds show their mean and standard deviation.

    Raises:
        ConfigError: no evaluation, or one without a full-token row.
    """
    try:
        rows = read_evaluation(path)["rows"]
    except ConfigError as error:
        raise ConfigError(f"evaluations: {error}") from None
    alike: dict[tuple[str, str], dict[int, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["relative_accuracy"] is None:
            raise ConfigError(
                f"evaluations: {path}: nothing to compare with: no row of all tokens, or one of too few right answers"
            )
        method = f"{row['method']}, fine-tuned" if row["trained"] else row["method"]
        localizer = f" ({row['localizer']})" if row.get("localizer") else ""
        alike[method, f"{row['region_source']}{localizer}"][row["token_budget"]].append(row)
    return {key: {budget: _cell(same) for budget, same in cells.items()} for key, cells in alike.items()}


def _cell(rows: Sequence[Mapping[str, Any]]) -> str:
    shares = [100 * row["relative_accuracy"] for row in rows]
    if len(shares) > 1:
        return f"{statistics.mean(shares):.1f} ± {statistics.stdev(shares):.1f}"
    interval = rows[0].get("relative_accuracy_ci95")
    if interval is None:
        return f"{shares[0]:.1f}"
    return f"{shares[0]:.1f} ({100 * interval[0]:.1f}-{100 * interval[1]:.1f})"


def read_published(path: str) -> dict[str, Any]:
    """Read published rows; ConfigError if the file is missing or has another form, or a row has no source.

    The default's file is looked for in the working directory, then in the clone.
    """
    beside = Path(__file__).parents[1] / path
    try:
        published = read_yaml(beside if path == PUBLISHED and not Path(path).is_file() and beside.is_file() else path)
    except ConfigError as error:
        raise ConfigError(f"published: {error}") from None
    if missing := [name for name in ("model", "budgets", "rows") if not published.get(name)]:
        raise ConfigError(f"published: {path}: not a file of published rows: no {missing[0]}")
    budgets, rows = published["budgets"], published["rows"]
    if not (
        isinstance(budgets, list) and all(isinstance(budget, int) for budget in budgets) and isinstance(rows, list)
    ):
        raise ConfigError(
            f"published: {path}: not a file of published rows: budgets must be a list of whole numbers, rows a list"
        )
    for row in rows:
        whole = isinstance(row, dict) and row.keys() == ROW_KEYS and isinstance(row["kept"], list) and row["source"]
        if not whole or len(row["kept"]) != len(budgets):
            expected = f"{', '.join(sorted(ROW_KEYS))} with a source and {len(budgets)} values"
            raise ConfigError(f"published: {path}: expected rows of {expected}, got {row}")
    return published


@command("train.leaderboard", LeaderboardArguments, positionals=("out",))
def main(arguments: LeaderboardArguments) -> None:
    """Print what methods retain of the full-token model, ours beside published ones."""
    lines: list[tuple[str, str, BudgetCells, str]] = []
    for path in arguments.evaluations:
        lines += [(method, regions, line, path) for (method, regions), line in our_lines(path).items()]
    if arguments.published is not None:
        published = read_published(arguments.published)
        for row in published["rows"]:
            values = zip(published["budgets"], row["kept"], strict=True)
            shown = {budget: str(value) for budget, value in values if value is not None}
            lines.append((f"{row['method']} ({row['kind']}, {published['model']})", "", shown, row["source"]))
    budgets = sorted({budget for _, _, line, _ in lines for budget in line}, reverse=True)
    header = ["method", "regions", *map(str, budgets), "source"]
    cells = [[method, regions, *[line.get(b, "") for b in budgets], source] for method, regions, line, source in lines]
    table = markdown_table(header, cells, align=f"ll{'r' * len(budgets)}l")
    text = f"# Per cent of the full-token model kept, by visual tokens\n\n{table}\n\n{NOTE}\n"
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, text)
    print(text)


if __name__ == "__main__":
    main()
