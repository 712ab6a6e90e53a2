import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.evaluation.metrics.matching import accuracy_by_group, exact_match, normalize_answer


@pytest.mark.parametrize(
    ("prediction", "target", "same"),
    [(" Two.\n", "two", True), ("7", "7", True), ("7", "17", False), ("", "0", False), ("2 dogs", "two dogs", False)],
)
def test_exact_match_forgives_case_blanks_and_a_final_period_only(prediction, target, same):
    assert exact_match(prediction, target) is same


@given(st.text())
def test_normalizing_twice_changes_nothing(text):
    assert normalize_answer(normalize_answer(text)) == normalize_answer(text)


def test_accuracy_by_group_counts_an_item_in_all_its_groups():
    groups = [("place", "small"), ("place", "large"), ("count",)]
    assert accuracy_by_group([True, False, True], groups) == {
        "count": {"n": 1, "accuracy": 1.0},
        "large": {"n": 1, "accuracy": 0.0},
        "place": {"n": 2, "accuracy": 0.5},
        "small": {"n": 1, "accuracy": 1.0},
    }
