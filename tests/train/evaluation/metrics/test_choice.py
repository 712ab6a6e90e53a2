import random
from dataclasses import replace

import pytest

from data_prep.common.errors import DataError
from tests.train.evaluation.metrics import lmms_reference
from train.evaluation.metrics.choice import choice, read_letter, summarize
from train.evaluation.metrics.table import METRICS

FOUR = ("a cat", "a dog", "a fox", "a hen")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        (" b\n", "B"),
        ("B.", "B"),
        ("(B)", "B"),
        ("B:", "B"),
        ("B. a dog", "B"),
        ("(B) a dog", "B"),
        ("The answer is B.", "B"),
        ("The answer is B", "B"),  # LLaVA's rule wants one more letter
        ("So the answer is (B) because", "B"),
        ("The answer is B. The answer is C.", None),  # two
        ("The answer is Bird", None),  # B by LLaVA's rule
        ("E", None),  # there are four options
        ("a dog", None),  # no letter: MMBench would look for the text
        ("A dog", None),
        ("Bird", None),
        ("", None),
        ("FAILED", None),
    ],
)
def test_letters_are_read_and_nothing_is_guessed(answer, letter):
    assert read_letter(answer, 4) == letter
    assert choice(answer, ["B"], FOUR) == (letter == "B")


@pytest.mark.parametrize("targets", [["E"], ["b"], [""], ["AB"], ["A", "B"], []])
def test_targets_that_are_no_option_are_refused(targets):
    with pytest.raises(DataError):
        choice("A", targets, FOUR)


def test_a_question_counts_if_all_its_rotations_are_right(row):
    rows = [
        row("7", score=1, group="x"),
        row("1000007", score=1, group="x"),
        row("2000007", score=1, group="x"),
        row("8", score=1, group="y"),
        row("1000008", score=0, group="y"),
        row("9", score=0, group="y"),
    ]
    expected = {"accuracy": 1 / 3, "accuracy/x": 1, "accuracy/y": 0, "vanilla_accuracy": 2 / 3}
    for order in (rows, rows[::-1]):
        assert summarize(order) == pytest.approx(expected)


def test_circular_is_never_above_vanilla_and_equal_without_rotations(row):
    draws = random.Random(0)
    for _ in range(50):
        rows = [row(str(turn * 1_000_000 + n), score=draws.random() < 0.8) for n in range(20) for turn in range(3)]
        summary = summarize(rows)
        assert summary["accuracy"] < summary["vanilla_accuracy"] or summary["vanilla_accuracy"] == summary["accuracy"]
        plain = summarize(rows[::3])
        assert plain["accuracy"] == plain["vanilla_accuracy"] == summary["vanilla_accuracy"]


def test_ids_that_are_no_numbers_are_no_rotations(row):
    rows = [row("v1_1000007", score=1), row("v1_7", score=0), replace(row("x"), score=1.0)]
    assert METRICS["choice"].value(rows) == pytest.approx(2 / 3)


def test_a_rotation_without_its_question_is_refused(row):
    with pytest.raises(DataError, match="1000007 is a rotation of 7"):
        summarize([row("1000007", score=1)])


def test_agrees_with_an_installed_reference_on_what_it_reads():
    if (folder := lmms_reference.package()) is None:
        pytest.skip("lmms-eval is not installed")
    names = ("sqa_doc_to_target", "sqa_process_results")
    task = lmms_reference.definitions(folder, "tasks/scienceqa/utils.py", *names)
    for answer in ("A", "a", "B", "B.", "B. a dog", "C. a", "Z", "dog", "", "D\n", "Bird"):
        for index, target in enumerate("ABCD"):
            theirs = task.sqa_process_results({"choices": FOUR, "answer": index}, [answer])["exact_match"]
            assert choice(answer, [target], FOUR) == theirs, (answer, target)
