"""The table of ours beside published rows: what stands in which cell, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.common.errors import ConfigError
from train.leaderboard import PUBLISHED, main, read_published

ROOT = Path(__file__).parents[2]


def row(method: str, budget: int, kept: float | None, **more: Any) -> dict[str, Any]:
    known = {
        "method": method, "trained": False, "token_budget": budget, "visual_tokens": budget, "retention_ratio": 0.5,
        "region_source": "global", "accuracy": 0.5, "accuracy_ci95": [0.4, 0.6], "relative_accuracy": kept,
        "macs": 1, "kv_bytes": 1, "ttft_s": None, "seed": 0,
    }  # fmt: skip
    return known | more


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"dataset": "toy", "n": 3, "rows": rows}))
    return path


def table(path: Path) -> dict[str, list[str]]:
    lines = [line.strip("| ").split("|") for line in path.read_text().splitlines() if line.startswith("|")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


def test_ours_stand_by_budget_with_intervals_and_spread(tmp_path: Path) -> None:
    ours = write(
        tmp_path / "evaluation.json",
        row("none", 576, 1.0),
        row("region_ratio", 64, 0.98, trained=True, seed=0),
        row("region_ratio", 64, 0.96, trained=True, seed=1),
        row("uniform", 64, 0.9, relative_accuracy_ci95=[0.88, 0.93]),
        row("uniform", 192, 0.95),
    )
    main([str(tmp_path / "board.md"), f"evaluations=[{ours}]", f"published={ROOT / PUBLISHED}"])
    found = table(tmp_path / "board.md")
    assert found["method"] == ["regions", "576", "192", "128", "64", "32", "source"]
    assert found["region_ratio, fine-tuned"] == ["global", "", "", "", "97.0 ± 1.4", "", str(ours)]
    assert found["uniform"] == ["global", "", "95.0", "", "90.0 (88.0-93.0)", "", str(ours)]
    assert found["none"][1] == "100.0"
    assert found["CROP-PLC (trained, LLaVA-1.5-7B)"][4] == "95.4"


def test_the_default_rows_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_published(PUBLISHED) == read_published(str(ROOT / PUBLISHED))
    monkeypatch.setattr("train.leaderboard.__file__", str(tmp_path / "site" / "train" / "leaderboard.py"))
    with pytest.raises(ConfigError, match=f"^published: {PUBLISHED}: no such file$"):
        read_published(PUBLISHED)


def test_every_published_row_has_a_source() -> None:
    published = read_published(str(ROOT / PUBLISHED))
    assert all(row["source"] for row in published["rows"])
    fastv = next(row for row in published["rows"] if row["method"] == "FastV")
    assert dict(zip(published["budgets"], fastv["kept"], strict=True)) == {192: 89.6, 128: 84.4, 64: 75.6, 32: 58.5}


@pytest.mark.parametrize(
    ("rows", "published", "message"),
    [
        ([row("uniform", 64, None)], None, "no row of all tokens, or one of too few right answers"),
        (None, None, "evaluation.json: no such file"),
        (
            [row("none", 576, 1.0)],
            "{model: a, budgets: [64], rows: [{method: a, kind: b, kept: [1], source: ''}]}",
            "a source",
        ),
        (
            [row("none", 576, 1.0)],
            "{model: a, budgets: [64], rows: [{method: a, kind: b, kept: [1, 2], source: x}]}",
            "1 values",
        ),
        ([row("none", 576, 1.0)], "[]", "published.yaml: expected 'key: value' lines"),
        ([row("none", 576, 1.0)], "[", "published.yaml: not YAML"),
        ([row("none", 576, 1.0)], "{model: a, budgets: [64]}", "not a file of published rows: no rows"),
        ([row("none", 576, 1.0)], "{model: a, budgets: [b], rows: [c]}", "budgets must be a list of whole numbers"),
        (
            [row("none", 576, 1.0)],
            "{model: a, budgets: [64], rows: [c]}",
            "expected rows of kept, kind, method, source",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    rows: list | None, published: str | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = tmp_path / "evaluation.json"
    if rows is not None:
        write(ours, *rows)
    words = [str(tmp_path / "board.md"), f"evaluations=[{ours}]", "published=null"]
    if published is not None:
        (tmp_path / "published.yaml").write_text(published)
        words[-1] = f"published={tmp_path / 'published.yaml'}"
    with pytest.raises(SystemExit) as ended:
        main(words)
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and message in line
    assert not (tmp_path / "board.md").exists()
