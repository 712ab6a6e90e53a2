"""Which rows teach a localizer, what they teach, and what is drawn of them."""

import json
import random
from pathlib import Path

import pytest

from crop_model.regions import Box, pixels_to_cells
from data_prep.localizer_data import Lesson, balanced, main, read_lessons
from data_prep.schema.region_size import size_of
from data_prep.schema.sample import RegionAnnotation, sample_id, write_regions

# image of 160 x 80 pixels: a cell is 20 x 10
ROWS: dict[str, tuple[Box | None, str, list[str], list[int] | None]] = {
    "drawn": ((20.0, 10.0, 40.0, 20.0), "human", [], [1, 1, 1, 1]),
    "touching": ((39.0, 0.0, 41.0, 11.0), "human", ["leak_answer_box"], [1, 0, 2, 1]),
    "read": ((0.0, 0.0, 160.0, 10.0), "ocr_match", [], [0, 0, 7, 0]),
    "everything": ((0.0, 0.0, 160.0, 80.0), "human", [], [0, 0, 7, 7]),
    "whole": (None, "global", [], [0, 0, 7, 7]),
    "unknown": (None, "global", ["no_evidence"], None),
    "guessed": ((0.0, 0.0, 9.0, 9.0), "object_match", [], None),
    "predicted": ((0.0, 0.0, 9.0, 9.0), "localizer", [], None),
}


def write_sidecar(folder: Path, source: str = "toy") -> Path:
    rows = [
        RegionAnnotation(
            sample_id(source, "a.png", turn, text), source, "a.png", turn, text, 160, 80,
            [] if region is None else [region], region, method, 1.0, flags,
        )
        for turn, (text, (region, method, flags, _)) in enumerate(ROWS.items())
    ]  # fmt: skip
    write_regions(folder, rows, {})
    return folder


def test_known_regions_are_taught_and_guesses_are_not(tmp_path: Path) -> None:
    taught = {lesson.question: list(lesson.cells) for lesson in read_lessons(write_sidecar(tmp_path / "toy"))}
    assert taught == {name: cells for name, (_, _, _, cells) in ROWS.items() if cells is not None}


def test_the_cells_are_those_of_the_unpadded_image() -> None:
    assert pixels_to_cells((20, 10, 40, 20), 160, 80) == (1, 1, 1, 1)
    assert pixels_to_cells((20, 10, 40, 20), 160, 160) == (1, 0, 1, 0)


@pytest.mark.parametrize(
    ("cells", "size"),
    [((0, 0, 1, 1), "small"), ((0, 0, 4, 0), "medium"), ((0, 0, 4, 4), "large"), ((0, 0, 7, 7), "global")],
)
def test_sizes_are_shares_of_the_grid(cells: tuple[int, int, int, int], size: str) -> None:
    assert size_of(cells) == size


def some_lessons() -> list[Lesson]:
    sizes = ["small"] * 60 + ["large"] * 30 + ["global"] * 10
    return [
        Lesson(f"{number:03d}", "ab"[number % 2], "x.png", "?", (0, 0, 0, 0), size) for number, size in enumerate(sizes)
    ]


def test_sizes_and_sources_are_balanced() -> None:
    kept = balanced(some_lessons(), per_source=40, per_size=20, seed=0)
    counts = {size: sum(lesson.size == size for lesson in kept) for size in ("small", "large", "global")}
    assert counts["small"] == counts["large"] == 20 and 0 < counts["global"] <= 10
    kept = balanced(some_lessons(), per_source=40, per_size=None, seed=0)
    assert [sum(lesson.source == source for lesson in kept) for source in "ab"] == [40, 40]
    assert balanced(some_lessons(), None, None, 0) == some_lessons()


def test_what_is_drawn_follows_the_seed_and_not_the_order() -> None:
    shuffled = some_lessons()
    random.Random(1).shuffle(shuffled)
    assert balanced(shuffled, 40, 20, 3) == balanced(some_lessons(), 40, 20, 3)
    assert balanced(shuffled, 40, 20, 4) != balanced(shuffled, 40, 20, 3)


def test_the_records_are_llava_s(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sidecar(tmp_path / "regions" / "one", "one")
    write_sidecar(tmp_path / "regions" / "two", "two")
    main([str(tmp_path / "regions" / "*"), str(tmp_path / "out" / "lessons.json")])
    records = json.loads((tmp_path / "out" / "lessons.json").read_text())
    assert len(records) == 10 and "10 of 10 questions" in capsys.readouterr().out
    record = next(record for record in records if record["conversations"][0]["value"] == "<image>\ndrawn")
    assert record["image"] == "a.png"
    assert record["conversations"] == [
        {"from": "human", "value": "<image>\ndrawn", "type": "small"},
        {"from": "gpt", "value": "[1, 1, 1, 1]"},
    ]


def test_the_questions_of_an_image_may_be_one_conversation(tmp_path: Path) -> None:
    write_sidecar(tmp_path / "regions" / "one", "one")
    write_sidecar(tmp_path / "regions" / "two", "two")
    words = [str(tmp_path / "regions" / "*"), str(tmp_path / "lessons.json"), "whole_images=true"]
    main(words)
    records = json.loads((tmp_path / "lessons.json").read_text())
    assert len(records) == 2  # each source has an a.png
    for record in records:
        questions, answers = record["conversations"][::2], record["conversations"][1::2]
        assert [turn["value"].startswith("<image>\n") for turn in questions] == [True] + [False] * 4
        taught = {
            turn["value"].removeprefix("<image>\n"): json.loads(answer["value"])
            for turn, answer in zip(questions, answers, strict=True)
        }
        assert taught == {name: cells for name, (_, _, _, cells) in ROWS.items() if cells is not None}


WRONG = {
    "missing": (["nowhere", "OUT"], "regions: no such folder: nowhere"),
    "no sidecar": (["EMPTY", "OUT"], "no manifest.json, not a region sidecar"),
    "zero": (["TOY", "OUT", "per_size=0"], "per_size: must be at least 1, got 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_call_is_one_line(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    names = {"OUT": tmp_path / "out.json", "EMPTY": tmp_path / "empty", "TOY": write_sidecar(tmp_path / "toy")}
    words, message = WRONG[case]
    with pytest.raises(SystemExit) as ended:
        main([str(names.get(word, word)) for word in words])
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and message in line
    assert not names["OUT"].exists()
