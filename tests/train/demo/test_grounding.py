"""Grounding phrases name what their cells hold; a wrong call is one line."""

import numpy as np
import pytest

from crop_model.regions import Box, Cells
from data_prep.boards.scenes import Scene, cell_name, compose, load_scans
from train.demo.base_model import build_processor
from train.demo.grounding import SHARES, GroundingBoards, main


def named_cells(scene: Scene, phrase: str) -> list[tuple[int, int]]:
    """The board's cells that a phrase names, found by looking at every cell."""
    cells = list(np.ndindex(scene.rows, scene.columns))
    if phrase == "the dark panel":
        return [cell for cell in cells if scene.in_panel(cell)]
    names = phrase.split(" and ")
    return [cell for cell in cells if cell_name(cell) in names or f"the {scene.frames.get(cell)} frame" in names]


def touched(scene: Scene, cells: list[tuple[int, int]]) -> Cells:
    """The 8x8 cells over the image that the box around some board cells meets: a slow, obvious reckoning."""
    rows, columns = [row for row, _ in cells], [column for _, column in cells]
    inside = [
        (x, y)
        for x in range(8)
        for y in range(8)
        if (x + 1) / 8 > min(columns) / scene.columns
        and x / 8 < (max(columns) + 1) / scene.columns
        and (y + 1) / 8 > min(rows) / scene.rows
        and y / 8 < (max(rows) + 1) / scene.rows
    ]
    xs, ys = [x for x, _ in inside], [y for _, y in inside]
    return min(xs), min(ys), max(xs), max(ys)


def test_the_answer_is_the_cells_of_what_the_phrase_names() -> None:
    boards = GroundingBoards("test", 1, 12, build_processor())
    seen = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scene = compose(rng, load_scans("test"))
        questions = boards.ask(rng, scene)
        assert len({question.text for question in questions}) == 12
        for question in questions:
            seen.add(question.kind)
            assert question.answer == str(list(touched(scene, named_cells(scene, question.text))))
            box: Box = question.boxes[0]
            assert 0 <= box[0] < box[2] <= scene.size[0]
    assert seen == set(SHARES)


def test_every_word_of_a_phrase_is_known() -> None:
    processor = build_processor()
    boards = GroundingBoards("test", 1, 12, processor)
    rng = np.random.default_rng(0)
    for question in boards.ask(rng, compose(rng, load_scans("test"))):
        ids = processor.tokenizer(question.text)["input_ids"]
        assert processor.tokenizer.unk_token_id not in ids


def test_a_base_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["out", "base=nowhere"])
    assert ended.value.code == 2
    assert "base: no such model: nowhere" in capsys.readouterr().err
