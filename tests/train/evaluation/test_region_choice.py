import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.evaluation.region_choice import choose_region, displaced_box


@st.composite
def boxes_in_images(draw):
    width, height = draw(st.integers(2, 500)), draw(st.integers(2, 500))
    x0, y0 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    x1, y1 = draw(st.integers(x0 + 1, width)), draw(st.integers(y0 + 1, height))
    return (float(x0), float(y0), float(x1), float(y1)), width, height


def overlap(first, second):
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(0.0, width) * max(0.0, height)


@given(boxes_in_images(), st.integers(0, 2**32))
def test_displaced_box_has_the_same_size_inside_the_image(case, seed):
    box, width, height = case
    moved = displaced_box(box, width, height, random.Random(seed))
    assert moved[2] - moved[0] == pytest.approx(box[2] - box[0])
    assert moved[3] - moved[1] == pytest.approx(box[3] - box[1])
    assert moved[0] >= 0 and moved[1] >= 0
    assert moved[2] <= width + 1e-9 and moved[3] <= height + 1e-9


@given(boxes_in_images(), st.integers(0, 2**32))
def test_displaced_box_leaves_the_region_wherever_there_is_another_place(case, seed):
    box, width, height = case
    fits_beside = max(box[0], width - box[2]) >= box[2] - box[0]
    fits_above_or_below = max(box[1], height - box[3]) >= box[3] - box[1]
    moved = displaced_box(box, width, height, random.Random(seed))
    if fits_beside or fits_above_or_below:
        assert overlap(box, moved) == pytest.approx(0, abs=1e-6)


def test_displaced_box_is_uniform_over_the_other_places():
    """Against rejection: draw any place, throw away those that overlap."""
    box, width, height = (30.0, 20.0, 50.0, 45.0), 100, 80
    rng = random.Random(0)
    drawn = [displaced_box(box, width, height, rng) for _ in range(20_000)]
    kept = []
    while len(kept) < 20_000:
        x, y = rng.uniform(0, 80), rng.uniform(0, 55)
        if overlap(box, (x, y, x + 20, y + 25)) == 0:
            kept.append((x, y))
    for axis in (0, 1):
        for cut in (15, 35, 50):
            share = sum(place[axis] < cut for place in drawn) / len(drawn)
            assert share == pytest.approx(sum(place[axis] < cut for place in kept) / len(kept), abs=0.015)


def test_random_regions_repeat_with_their_key_and_differ_from_the_oracle():
    oracle = (10.0, 10.0, 40.0, 30.0)
    first = choose_region("random", oracle, 128, 96, "seed 0, sample a")
    assert first == choose_region("random", oracle, 128, 96, "seed 0, sample a")
    assert first != choose_region("random", oracle, 128, 96, "seed 1, sample a")
    assert first != oracle


def test_a_question_without_a_region_has_none_under_any_source():
    assert choose_region("oracle", (0.0, 0.0, 4.0, 4.0), 8, 8, "") == (0.0, 0.0, 4.0, 4.0)
    assert choose_region("global", (0.0, 0.0, 4.0, 4.0), 8, 8, "") is None
    assert choose_region("random", None, 8, 8, "") is None
    assert choose_region("oracle", None, 8, 8, "") is None


def test_an_unknown_source_is_refused():
    with pytest.raises(ValueError, match="localizer"):
        choose_region("localizer", None, 8, 8, "")
