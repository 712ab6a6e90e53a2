"""`train.evaluate` on public benchmarks: the answers of a tiny model, scored, summarized and kept in the report."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.common.errors import ConfigError
from tests.train.evaluation.benchmarks.official import PUBLISHED
from train.arguments.data import DataArguments
from train.backbones.checkpoint import Checkpoint
from train.evaluate import main
from train.evaluation.arguments import EvaluateArguments, RowGroup
from train.evaluation.benchmark_scores import add_retention, benchmark_table, describe_benchmarks
from train.evaluation.benchmarks.mme import CATEGORIES
from train.evaluation.benchmarks.samples import load_benchmark
from train.evaluation.benchmarks.source import BenchmarkSource, benchmark_of, read_questions
from train.evaluation.metrics.rows import ScoredRow
from train.evaluation.metrics.table import METRICS
from train.evaluation.questions import read_benchmarks, scored


def sources(folder: Path, *names: str) -> list[BenchmarkSource]:
    return [PUBLISHED[name]().write(folder / name, name) for name in names]


def words(found: list[BenchmarkSource]) -> str:
    keys = [{"name": s.name, "path": s.path, "image_root": s.image_root, "ocr_tokens": s.ocr_tokens} for s in found]
    return f"benchmarks={json.dumps(keys)}"


def run(out: Path, rows: list[dict[str, Any]], *more: str) -> dict[str, Any]:
    main([f"rows={json.dumps(rows)}", f"output_dir={out}", "max_new_tokens=3", "ttft_samples=0", *more])
    return json.loads((out / "evaluation.json").read_text())


def answered(score: float, number: int, group: str | None = None) -> ScoredRow:
    return ScoredRow(str(number), "a", ("a",), (), group, None, score)


def test_every_benchmark_in_one_table(tiny_llava: Path, tiny_crop_llava: Path, tmp_path: Path) -> None:
    found = sources(tmp_path, *PUBLISHED)
    found.append(PUBLISHED["textvqa"]().write(tmp_path / "ocr", "textvqa", ocr_tokens=True))
    rows = [{"checkpoint": str(tiny_llava), "compressor_type": "none"}, {"checkpoint": str(tiny_crop_llava)}]
    result = run(tmp_path / "out", rows, words(found))
    labels = [*PUBLISHED, "textvqa_ocr"]
    assert result["dataset"] == "+".join(labels)
    assert result["n"] == sum(len(read_questions(source)) for source in found)
    for number, row in enumerate(result["rows"]):
        assert list(row["benchmarks"]) == labels
        (file,) = (tmp_path / "out").glob(f"predictions-{number:02d}-*.jsonl")
        predictions = [json.loads(line) for line in file.read_text().splitlines()]
        shares = []
        for label in labels:
            told, metric = row["benchmarks"][label], METRICS[benchmark_of(label).metric]
            own = [p["scored"] for p in predictions if p["benchmark"] == label]
            again = metric.summarize([ScoredRow(**{**answer, "targets": tuple(answer["targets"])}) for answer in own])
            assert told["scores"] == again
            assert (told["score"], told["n"]) == (again[metric.headline], len(own))
            shares.append(told["score"] / metric.full_score)
        assert row["accuracy"] == pytest.approx(sum(shares) / len(shares))
        assert all(p["correct"] == (p["scored"]["score"] == 1) for p in predictions)
    report = (tmp_path / "out" / "evaluation.md").read_text()
    assert "textvqa_ocr" in report and "exact match" not in report


def test_the_right_answer_in_the_benchmark_s_file_is_scored_as_such(tiny_crop_llava: Path, tmp_path: Path) -> None:
    (source,) = sources(tmp_path, "gqa")
    rows = [{"checkpoint": str(tiny_crop_llava)}]
    run(tmp_path / "first", rows, words([source]))
    (file,) = (tmp_path / "first").glob("predictions-00-*.jsonl")
    answer = json.loads(file.read_text().splitlines()[1])["answer"]
    path = Path(source.path) / "testdev_balanced_questions.json"
    asked = json.loads(path.read_text())
    asked["201640614"]["answer"] = answer.upper() or "."
    path.write_text(json.dumps(asked))
    (row,) = run(tmp_path / "second", rows, words([source]))["rows"]
    assert row["accuracy"] == row["benchmarks"]["gqa"]["score"] == 0.5
    assert row["benchmarks"]["gqa"]["scores"] == {"accuracy": 0.5, "accuracy/query": 1.0, "accuracy/verify": 0.0}


def test_a_configuration_that_was_written_runs_again(tiny_crop_llava: Path, tmp_path: Path) -> None:
    first = run(tmp_path / "out", [{"checkpoint": str(tiny_crop_llava)}], words(sources(tmp_path, "pope", "mme")))
    main([str(tmp_path / "out" / "evaluation.yaml"), f"output_dir={tmp_path / 'again'}"])
    again = json.loads((tmp_path / "again" / "evaluation.json").read_text())
    assert again["rows"] == first["rows"]


def first_cells(table: str) -> list[str]:
    """The cells of a Markdown table's first row."""
    return [cell.strip() for cell in table.splitlines()[2].strip("|").split("|")]


def test_means_and_retention_by_hand() -> None:
    full = {"gqa": [answered(1, 0), answered(1, 1), answered(1, 2), answered(1, 3)]}
    full["docvqa"] = [answered(0.8, 0), answered(0.8, 1)]
    half = {"gqa": [answered(1, 0), answered(0, 1), answered(1, 2), answered(0, 3)]}
    half["docvqa"] = [answered(0.6, 0), answered(0.6, 1)]
    rows = [{"method": "m", "token_budget": 4, "region_source": "oracle"} | describe_benchmarks(half)]
    rows.append({"method": "none", "token_budget": 64, "region_source": "oracle"} | describe_benchmarks(full))
    add_retention(rows, [half, full], None)
    assert rows[0]["benchmarks"]["gqa"]["retention"] is None
    add_retention(rows, [half, full], 1)
    assert [row["accuracy"] for row in rows] == pytest.approx([0.55, 0.9])
    assert rows[0]["benchmarks"]["gqa"]["retention"] == 0.5
    assert rows[0]["benchmarks"]["docvqa"]["retention"] == pytest.approx(0.75)
    assert [row["relative_accuracy"] for row in rows] == pytest.approx([0.625, 1])
    assert [row["relative_to"] for row in rows] == [1, 1]
    low, high = rows[0]["relative_accuracy_ci95"]
    # DocVQA's two questions are alike; of GQA's four, 0 to 4 right ones are drawn
    assert 0.375 <= round(low, 9) < 0.625 < round(high, 9) <= 0.875
    assert rows[1]["relative_accuracy_ci95"] == pytest.approx([1, 1])
    worse = {label: [answered(0.5, number) for number in range(len(half[label]))] for label in half}
    add_retention(rows, [half, worse], 1)  # known already
    assert rows[0]["relative_accuracy"] == pytest.approx(0.625)
    assert first_cells(benchmark_table(rows)) == ["m", "4", "oracle", "50.0 (50.0)", "60.0 (75.0)"]


def test_a_perfect_mme_weighs_as_much_as_any_other_benchmark() -> None:
    keys = [(category, number) for category in CATEGORIES for number in range(2)]
    mme = [ScoredRow(f"{c}/{n}", "yes", ("Yes",), (), c, "1.png", 1.0) for c, n in keys]
    row = describe_benchmarks({"mme": mme, "gqa": [answered(0, 0)]})
    assert (row["benchmarks"]["mme"]["score"], row["accuracy"]) == (2800, 0.5)
    assert row["accuracy_ci95"] == [0.5, 0.5]
    table = benchmark_table([row | {"method": "m", "token_budget": 4, "region_source": "x"}])
    assert first_cells(table)[3:] == ["2800.0", "0.0"]


def test_nothing_is_kept_of_a_model_that_is_never_right() -> None:
    zero = {"gqa": [answered(0, 0), answered(0, 1)], "docvqa": [answered(1, 0)]}
    rows = [describe_benchmarks(zero)]
    add_retention(rows, [zero], 0)
    assert rows[0]["benchmarks"]["gqa"]["retention"] is None
    assert rows[0]["benchmarks"]["docvqa"]["retention"] == 1
    assert rows[0]["relative_accuracy"] is None


def test_a_target_that_no_metric_takes_is_named(tiny_crop_llava: Path, tmp_path: Path) -> None:
    processor = Checkpoint.open(tiny_crop_llava).processor()
    (source,) = sources(tmp_path, "vizwiz")
    row = load_benchmark(source, processor, 512, read_questions(source))[0] | {"targets": ["one"]}
    with pytest.raises(ValueError, match=r"val.json: record 0: "):
        scored(row, "two")


def test_what_cannot_be_asked(tmp_path: Path, tiny_crop_llava: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [RowGroup(str(tiny_crop_llava))]
    gqa, mme = sources(tmp_path, "gqa", "mme")
    with pytest.raises(ConfigError, match="benchmarks: one is there twice: gqa, gqa"):
        EvaluateArguments(rows=rows, benchmarks=[gqa, gqa])
    with pytest.raises(ConfigError, match="num_samples: MME's questions come in pairs"):
        EvaluateArguments(rows=rows, benchmarks=[mme], num_samples=3)
    first = read_benchmarks(EvaluateArguments(rows=rows, benchmarks=[mme, gqa], num_samples=2), DataArguments())
    assert {label: len(asked) for label, asked in first.items()} == {"mme": 2, "gqa": 2}
    (Path(gqa.path) / "testdev_balanced_questions.json").write_text("{}")
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path / "out", [{"checkpoint": str(tiny_crop_llava)}], words([gqa]))
    assert "no questions of gqa" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        run(tmp_path / "out", [{"checkpoint": str(tiny_crop_llava)}])
    assert "eval_data: no questions to ask" in capsys.readouterr().err
