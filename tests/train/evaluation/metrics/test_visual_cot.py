import pytest

from data_prep.common.errors import DataError
from train.evaluation.metrics.rows import ScoredRow
from train.evaluation.metrics.visual_cot import summarize, visual_cot


@pytest.mark.parametrize(
    ("answer", "target", "score"),
    [
        ("red", "Red.", 1),
        ("The car is red.", "red", 1),
        ("The car is reddish", "red", 0),  # words, not letters
        ("red", "dark red", 0),  # the target stands in the answer, not the other way round
        ("a dark, red car", "dark red", 1),
        ("red and dark", "dark red", 0),
        ("two dogs", "2", 1),
        ("", "red", 0),
        ("red", "the", 0),  # nothing is left of the target
        ("a", "the", 1),
    ],
)
def test_the_target_has_to_stand_in_the_answer(answer, target, score):
    assert visual_cot(answer, [target]) == score
    assert visual_cot(answer, ["zebra", target]) == score


def test_exact_answers_are_counted_apart():
    answers = [("red", "Red"), ("it is red", "red"), ("blue", "red")]
    rows = [
        ScoredRow(str(index), answer, (target,), (), "docvqa", None, visual_cot(answer, [target]))
        for index, (answer, target) in enumerate(answers)
    ]
    expected = {"accuracy": 2 / 3, "accuracy/docvqa": 2 / 3, "exact_accuracy": 1 / 3}
    assert summarize(rows) == pytest.approx(expected)


def test_no_target_is_refused():
    with pytest.raises(DataError, match="no target"):
        visual_cot("a", [])
