"""The demo's data: deterministic, disjoint, every answer derived again from the board and seen again in its boxes."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from data_prep.boards.questions import KINDS, ask
from data_prep.boards.scenes import COLOURS, DIGIT_SHARE, compose, load_scans, render
from data_prep.demo import DemoArguments, main, write_demo
from data_prep.schema.sample import read_regions, sample_id

ARGUMENTS = DemoArguments(train_images=4, test_images=30, seed=5)


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    write_demo(out, ARGUMENTS)
    return out


@pytest.fixture(scope="module")
def scenes():
    """(scene, questions, pixels) of many boards; pixels (height, width, 3)."""
    scans = load_scans("test")
    made = []
    for number in range(60):
        rng = np.random.default_rng([7, number])
        scene = compose(rng, scans)
        made.append((scene, ask(rng, scene, 8), np.asarray(render(scene, scans, rng)).astype(int)))
    return made


def questions_of(demo: Path, split: str):
    for record in json.loads((demo / f"{split}.json").read_text()):
        turns = record["conversations"]
        for turn, (human, reply) in enumerate(zip(turns[::2], turns[1::2], strict=True)):
            yield record, turn, human, reply


def digest(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_arguments_write_the_same_bytes(demo, tmp_path):
    write_demo(tmp_path, ARGUMENTS)
    assert digest(tmp_path) == digest(demo)
    other = tmp_path / "other"
    write_demo(other, DemoArguments(train_images=4, test_images=30, seed=6))
    assert digest(other)["test.json"] != digest(demo)["test.json"]


def test_no_scan_is_in_both_splits():
    train, test = load_scans("train"), load_scans("test")
    assert not set(train.indices) & set(test.indices)
    assert len(train.indices) + len(test.indices) == len(load_digits().target)
    assert np.array_equal(test.labels, load_digits().target[test.indices])
    as_bytes = {scan.tobytes() for scan in train.images}
    assert not any(scan.tobytes() in as_bytes for scan in test.images)
    assert set(test.labels) == set(range(10))


def test_annotations_and_sidecar_agree(demo):
    for split in ("train", "test"):
        regions = read_regions(demo / "regions" / split)
        seen = set()
        for record, turn, human, _ in questions_of(demo, split):
            text = human["value"].replace("<image>", "").strip()
            assert ("<image>" in human["value"]) == (turn == 0)
            row = regions[sample_id(regions.source, record["image"], turn, text)]
            with Image.open(demo / "images" / record["image"]) as image:
                assert (row.width, row.height) == image.size
            assert (
                (row.region is None)
                == (human["type"] in ("count", "exists"))
                == (row.method == "global")
                == (not row.boxes)
            )
            if row.region is not None:
                sides = np.array(row.boxes)
                assert row.region == (*sides[:, :2].min(0), *sides[:, 2:].max(0))
                assert 0 <= row.region[0] < row.region[2] <= row.width
                assert 0 <= row.region[1] < row.region[3] <= row.height
            seen.add(row.sample_id)
        assert seen == set(regions)


def test_sizes_aspects_formats_and_kinds_vary(demo):
    regions = read_regions(demo / "regions/test")
    sizes = {(row.width, row.height) for row in regions.values()}
    aspects = {round(width / height, 2) for width, height in sizes}
    assert len(sizes) > 15
    assert min(aspects) < 0.8
    assert max(aspects) > 1.2
    assert {Path(row.image).suffix for row in regions.values()} == {".png", ".jpg"}
    assert {human["type"] for _, _, human, _ in questions_of(demo, "test")} == set(KINDS)


def test_regions_are_below_and_far_above_a_ninth_of_the_image(demo):
    rows = [row for row in read_regions(demo / "regions/test").values() if row.region is not None]
    shares = [
        (row.region[2] - row.region[0]) * (row.region[3] - row.region[1]) / max(row.width, row.height) ** 2
        for row in rows
    ]
    assert min(shares) < 0.02
    assert max(shares) > 0.25


# --- answers derived again, from the words and the board's state, by other code than the questions' own


def place_cells(text: str) -> list[tuple[int, int]]:
    return [(int(row) - 1, ord(column) - ord("A")) for column, row in re.findall(r"at ([A-H])([1-8])", text)]


def framed_cells(text: str, scene) -> list[list[tuple[int, int]]]:
    """For every colour that the text names, the cells with a frame of it."""
    named = re.findall("|".join(COLOURS), text)
    return [[cell for cell, colour in scene.frames.items() if colour == name] for name in named]


def derive(kind: str, text: str, scene) -> tuple[str, set[tuple[int, int]]]:
    """Answer and the cells that it takes, from the question's words."""
    if kind == "count":
        (cells,) = framed_cells(text, scene)
        return str(len(cells)), set()
    if kind == "exists":
        return "yes" if framed_cells(text, scene) != [[]] else "no", set()
    if kind == "panel":
        top, left, bottom, right = scene.panel
        block = {(row, column) for row in range(top, bottom + 1) for column in range(left, right + 1)}
        (cells,) = framed_cells(text, scene)
        (cell,) = block & set(cells)
        return str(scene.digit[cell]), block
    cells = place_cells(text)
    for found in framed_cells(text, scene):
        assert len(found) == 1, "the named frame must be the only one"
        cells += found
    digits = [int(scene.digit[cell]) for cell in cells]
    answer = {"place": min, "frame": min, "add": sum, "larger": max}[kind](digits)
    assert len(cells) == (2 if kind in ("add", "larger") else 1)
    return str(answer), set(cells)


def covered(scene, boxes) -> set[tuple[int, int]]:
    """The cells whose centre lies in a box."""
    side = scene.cell_pixels
    return {
        (row, column)
        for row, column in np.ndindex(scene.rows, scene.columns)
        for x1, y1, x2, y2 in boxes
        if x1 < (column + 0.5) * side < x2 and y1 < (row + 0.5) * side < y2
    }


def test_answers_and_boxes_follow_from_the_board(scenes):
    kinds = set()
    for scene, questions, _ in scenes:
        assert len({question.text for question in questions}) == len(questions)
        for question in questions:
            answer, cells = derive(question.kind, question.text, scene)
            assert question.answer == answer
            assert covered(scene, question.boxes) == cells
            kinds.add(question.kind)
    assert kinds == set(KINDS)


def crop(pixels: np.ndarray, box) -> np.ndarray:
    x1, y1, x2, y2 = (int(side) for side in box)
    return pixels[y1:y2, x1:x2]


def near(pixels: np.ndarray, colour) -> np.ndarray:
    return np.abs(pixels - np.array(colour)).sum(-1) < 30


def test_boxes_hold_the_pixels_that_are_asked_for(scenes):
    """A frame's colour runs along its box's border, a panel is dark but for its digits and frames."""
    checked = set()
    for _, questions, pixels in scenes:
        for question in questions:
            if question.kind == "frame":
                (colour,) = re.findall("|".join(COLOURS), question.text)
                inside = near(crop(pixels, question.boxes[0]), COLOURS[colour])
                assert inside[0].all()
                assert inside[-1].all()
                assert inside[:, 0].all()
                assert inside[:, -1].all()
                checked.add("frame")
            elif question.kind == "panel":
                x1, y1, x2, y2 = (int(side) for side in question.boxes[0])
                dark = pixels.max(-1) <= 65
                assert dark[y1:y2, x1:x2].mean() > 0.4
                checked.add("panel")
    assert checked == {"frame", "panel"}


def test_digit_in_the_box_is_the_scan(scenes):
    """In a cell without a frame, the ink follows the scan that the board's state names there."""
    scans = load_scans("test")
    for scene, questions, pixels in scenes[:30]:
        for question in questions:
            cells = place_cells(question.text)
            if question.kind == "place" and cells[0] not in scene.frames:
                grey = crop(pixels, question.boxes[0]).mean(-1)
                side = round(DIGIT_SHARE * scene.cell_pixels)
                scan = Image.fromarray((scans.images[scene.scan[cells[0]]] * 255).astype(np.uint8))
                ink = np.asarray(scan.resize((side, side), Image.Resampling.BICUBIC)).astype(float)
                sign = 1 if scene.in_panel(cells[0]) else -1  # light ink on the panel, dark ink elsewhere
                shifts = range(len(grey) - side + 1)
                windows = [sign * grey[y : y + side, x : x + side] for y in shifts for x in shifts]
                assert max(np.corrcoef(window.ravel(), ink.ravel())[0, 1] for window in windows) > 0.98


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["OUT", "train_image=3"], "unknown key 'train_image' (did you mean 'train_images'?)"),
        (["OUT", "train_images"], "'train_images' is neither a configuration file nor key=value"),
        (["OUT", "seed=x"], "seed: expected a whole number, got 'x'"),
        (["OUT", "test_images=0"], "test_images: 0 must be at least 1"),
        (["OUT", "seed=-1"], "seed: -1 must not be negative"),
        (["OUT", "questions_per_image=99"], "questions_per_image: 99 is above 20"),
        (["seed=1"], "out: is required"),
        ([], "out: is required"),
    ],
)
def test_wrong_calls_are_one_line_and_exit_2(tmp_path, capsys, words, message):
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as caught:
        main([str(out) if word == "OUT" else word for word in words])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_output_folder_that_is_a_file(tmp_path, capsys):
    (tmp_path / "out").write_text("")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "out")])
    assert "is a file" in capsys.readouterr().err


def test_help_names_every_key_with_its_default(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n  {key} (" in text for key in ("out", "train_images", "test_images", "questions_per_image", "seed"))
