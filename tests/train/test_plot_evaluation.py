"""The Pareto picture: its points, its front, and what a wrong call says."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from train.plot_evaluation import Point, main, pareto, points_by_line


def row(method: str, budget: int, accuracy: float, seed: int = 0, ttft_s: float | None = 0.01) -> dict:
    fixed = {
        "region_source": "oracle", "trained": False, "visual_tokens": budget, "retention_ratio": 0.5,
        "accuracy_ci95": [0.4, 0.6], "relative_accuracy": None, "macs": 1, "kv_bytes": 1,
    }  # fmt: skip
    return {"method": method, "token_budget": budget, "accuracy": accuracy, "seed": seed, "ttft_s": ttft_s, **fixed}


def test_seeds_are_one_point() -> None:
    lines = points_by_line([row("a", 28, 0.5), row("a", 28, 0.7, seed=1), row("a", 14, 0.4)], "visual_tokens")
    (first, second) = lines["a, oracle"]
    assert first == Point(14, 40.0, 0.0)
    assert (second.cost, second.accuracy, second.spread) == pytest.approx((28, 60, 14.142), abs=1e-3)
    assert points_by_line([row("a", 28, 0.5, ttft_s=None)], "ttft_s") == {}


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1))
def test_the_front_is_what_no_point_beats(pairs: list[tuple[int, int]]) -> None:
    points = [Point(cost, accuracy, 0) for cost, accuracy in pairs]
    beaten = {
        a for a, b in itertools.product(points, points)
        if b.cost <= a.cost and b.accuracy >= a.accuracy and (b.cost, b.accuracy) != (a.cost, a.accuracy)
    }  # fmt: skip
    assert pareto(points) == sorted(set(points) - beaten, key=lambda point: point.cost)


@pytest.mark.parametrize("times, panels", [((0.01, 0.02), 2), ((None, None), 1)])
def test_the_command_draws(tmp_path: Path, times: tuple, panels: int) -> None:
    source, target = tmp_path / "evaluation.json", tmp_path / "out.png"
    rows = [row("a", 28, 0.5, ttft_s=times[0]), row("b", 14, 0.4, ttft_s=times[1])]
    source.write_text(json.dumps({"dataset": "toy", "rows": rows}))
    main([str(source), str(target)])
    assert Image.open(target).width == panels * 605


@pytest.mark.parametrize(
    "words, message",
    [
        (["a.json"], "picture: is required"),
        (["a.json", "out.bmp"], "ends in .png"),
        (["a.json", "b.png"], "no such"),
    ],
)
def test_wrong_calls(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(
    "content, message",
    [
        ("years", "not an evaluation.json of train.evaluate: not JSON: Expecting value: line 1 column 1 (char 0)"),
        ("{}", "not an evaluation.json of train.evaluate: no rows"),
        ('{"rows": [{}]}', "not an evaluation.json of train.evaluate: no accuracy_ci95"),
        ("[1]", "not an evaluation.json of train.evaluate: it holds something else than a table's rows"),
        ('{"rows": 3}', "not an evaluation.json of train.evaluate: it holds something else than a table's rows"),
    ],
)
def test_what_is_no_evaluation_is_said_in_words(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = tmp_path / "evaluation.json"
    source.write_text(content)
    with pytest.raises(SystemExit) as caught:
        main([str(source), str(tmp_path / "out.png")])
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"python -m train.plot_evaluation: error: {source}: {message}\n"


def test_an_evaluation_without_rows_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = tmp_path / "evaluation.json"
    source.write_text(json.dumps({"dataset": "toy", "rows": []}))
    with pytest.raises(SystemExit) as caught:
        main([str(source), str(tmp_path / "out.png")])
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith(f"{source}: an evaluation without rows\n")
