"""Ask questions about a demo scene, each with its answer and the boxes that show it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from crop_model.regions import Box

from .scenes import COLOURS, Cell, Scene, cell_name

ADJACENT_CHANCE = 0.4


@dataclass(frozen=True)
class BoardQuestion:
    """Hold one question: its type (`kind`), text, answer and boxes; without boxes it needs the whole image.

    `digits` are those that the text refers to, in its order.
    """

    kind: str
    text: str
    answer: str
    boxes: tuple[Box, ...]
    digits: tuple[int, ...]


def ask(rng: np.random.Generator, scene: Scene, count: int) -> list[BoardQuestion]:
    """Draw `count` different questions about a scene, with types in their shares."""
    kinds, shares = list(KINDS), np.array([share for share, _ in KINDS.values()])
    questions: dict[str, BoardQuestion] = {}
    while len(questions) < count:
        kind = kinds[rng.choice(len(kinds), p=shares / shares.sum())]
        question = KINDS[kind][1](rng, scene)
        if question is not None:
            questions.setdefault(question.text, question)
    return list(questions.values())


def ask_place(rng: np.random.Generator, scene: Scene) -> BoardQuestion:
    cell = random_cell(rng, scene)
    return _ask_digit("place", f"Which digit is at {cell_name(cell)}?", scene, cell, scene.cell_box(cell))


def ask_frame(rng: np.random.Generator, scene: Scene) -> BoardQuestion | None:
    unique = unique_colours(scene)
    if not unique:
        return None
    colour = unique[rng.integers(len(unique))]
    (cell,) = scene.framed_in(colour)
    return _ask_digit("frame", f"Which digit is in the {colour} frame?", scene, cell, scene.cell_box(cell))


def ask_panel(rng: np.random.Generator, scene: Scene) -> BoardQuestion | None:
    """Ask for a frame anywhere on the panel, so that the region is the panel; the same frame may occur outside it."""
    inside = [(cell, colour) for cell, colour in sorted(scene.frames.items()) if scene.in_panel(cell)]
    colours = [colour for _, colour in inside]
    single = [(cell, colour) for cell, colour in inside if colours.count(colour) == 1]
    if not single:
        return None
    cell, colour = single[rng.integers(len(single))]
    text = f"Which digit on the dark panel is in the {colour} frame?"
    return _ask_digit("panel", text, scene, cell, scene.block_box(scene.panel))


def ask_exists(rng: np.random.Generator, scene: Scene) -> BoardQuestion:
    colour = random_colour(rng)
    answer = "yes" if scene.framed_in(colour) else "no"
    return BoardQuestion("exists", f"Is any frame {colour}?", answer, (), ())


def ask_count(rng: np.random.Generator, scene: Scene) -> BoardQuestion:
    colour = random_colour(rng)
    return BoardQuestion("count", f"How many {colour} frames are there?", str(len(scene.framed_in(colour))), (), ())


def _ask_digit(kind: str, text: str, scene: Scene, cell: Cell, box: Box) -> BoardQuestion:
    digit = int(scene.digit[cell])
    return BoardQuestion(kind, text, str(digit), (box,), (digit,))


def ask_pair(
    rng: np.random.Generator, scene: Scene, kind: str, text: str, combine: Callable[[tuple[int, int]], int]
) -> BoardQuestion | None:
    pair = pair_of_cells(rng, scene)
    if pair is None:
        return None
    (first, first_name), (second, second_name) = pair
    digits = int(scene.digit[first]), int(scene.digit[second])
    boxes = (scene.cell_box(first), scene.cell_box(second))
    return BoardQuestion(kind, text.format(first_name, second_name), str(combine(digits)), boxes, digits)


KINDS: dict[str, tuple[float, Callable[[np.random.Generator, Scene], BoardQuestion | None]]] = {
    "place": (0.34, ask_place),
    "frame": (0.30, ask_frame),
    "larger": (0.10, partial(ask_pair, kind="larger", text="Which digit is larger, {} or {}?", combine=max)),
    "add": (0.04, partial(ask_pair, kind="add", text="Add the digits {} and {}.", combine=sum)),
    "panel": (0.14, ask_panel),
    "exists": (0.05, ask_exists),
    "count": (0.03, ask_count),
}


def pair_of_cells(rng: np.random.Generator, scene: Scene) -> tuple[tuple[Cell, str], tuple[Cell, str]] | None:
    """Draw two different cells with their names: two cells, sometimes adjacent, or two frames."""
    if rng.random() < 0.5:
        unique = unique_colours(scene)
        if len(unique) < 2:
            return None
        one, other = (unique[index] for index in rng.permutation(len(unique))[:2])
        (first,), (second,) = scene.framed_in(one), scene.framed_in(other)
        return (first, f"in the {one} frame"), (second, f"in the {other} frame")
    first = random_cell(rng, scene)
    others = [cell for cell in _digit_cells(scene) if cell != first]
    near = [cell for cell in others if abs(cell[0] - first[0]) + abs(cell[1] - first[1]) == 1]
    pool = near if near and rng.random() < ADJACENT_CHANCE else others
    second = pool[rng.integers(len(pool))]
    return (first, f"at {cell_name(first)}"), (second, f"at {cell_name(second)}")


def unique_colours(scene: Scene) -> list[str]:
    """Return the colours with exactly one frame on the board, so that a colour names a cell."""
    return [colour for colour in COLOURS if len(scene.framed_in(colour)) == 1]


def random_colour(rng: np.random.Generator) -> str:
    return list(COLOURS)[rng.integers(len(COLOURS))]


def _digit_cells(scene: Scene) -> list[Cell]:
    return [(int(row), int(column)) for row, column in np.argwhere(scene.digit >= 0)]


def random_cell(rng: np.random.Generator, scene: Scene) -> Cell:
    cells = _digit_cells(scene)
    return cells[rng.integers(len(cells))]
