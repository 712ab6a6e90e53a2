"""docs/tutorial.md, followed on a hundred images made here."""

import csv
import json
import random
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.page import ROOT, follow

pytestmark = pytest.mark.integration

SIDE = 20


def write_images(folder: Path) -> None:
    """A square of one colour at a place of its own in each image; every third question comes without its box."""
    (folder / "images").mkdir(parents=True)
    draw = random.Random(0)
    rows = []
    for number in range(100):
        width, height = draw.choice([(96, 64), (64, 96), (80, 80)])
        x, y, colour = draw.randrange(width - SIDE), draw.randrange(height - SIDE), draw.choice(["red", "blue"])
        image = Image.new("RGB", (width, height), "white")
        ImageDraw.Draw(image).rectangle((x, y, x + SIDE - 1, y + SIDE - 1), fill=colour)
        image.save(folder / "images" / f"{number:03}.png")
        box = (x, y, x + SIDE, y + SIDE) if number % 3 else ("", "", "", "")
        rows.append((f"{number:03}.png", "what color is the square ?", colour, *box))
    with (folder / "questions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "question", "answer", "x1", "y1", "x2", "y2"), *rows])


def test_the_tutorial_leads_to_an_answer(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    mine = tmp_path / "mine"
    write_images(mine)
    printed = follow("tutorial.md", tmp_path)
    assert "train: yes" in printed
    assert "loads without this project" in printed
    assert printed.splitlines()[-2].startswith("A: ")
    records = [json.loads(line) for name in ("train", "held_out") for line in (mine / f"{name}.jsonl").open()]
    assert len(records) == 100
    assert sum("objects" in record for record in records) == 66
    result = json.loads((mine / "evaluation" / "evaluation.json").read_text())
    assert result["n"] == 20
    assert [row["visual_tokens"] for row in result["rows"]] == [256, 28, 28]
    with Image.open(mine / "answer.png") as picture:
        assert picture.width > 100
