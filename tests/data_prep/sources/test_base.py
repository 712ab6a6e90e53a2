"""What readers share: votes of annotators, questions in the same words."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.common.errors import RecordError
from data_prep.schema.question import Question
from data_prep.sources.base import majority, merged, votes

A, B = (0.0, 0.0, 9.0, 9.0), (5.0, 5.0, 20.0, 20.0)


@pytest.mark.parametrize(
    ("answers", "counted"),
    [
        (["red", "Red ", "blue", "RED", "blue"], {"red": 3, "blue": 2}),
        (["Blue", "red", "blue", " Red"], {"Blue": 2, "red": 2}),  # a tie: the first given
        (["", " ", "", "a"], {"a": 1}),
        (["\t", ""], {}),
        ([], {}),
        (["STRASSE", "stra\u00dfe"], {"STRASSE": 2}),
    ],
)
def test_votes(answers: Sequence[str], counted: dict[str, int]) -> None:
    assert list(votes(answers).items()) == list(counted.items())
    assert majority(answers) == next(iter(counted), "")


@given(st.lists(st.sampled_from(["a", "A", " a", "b", "B ", "c", "", " "]), max_size=9))
def test_nobody_has_more_votes_than_the_majority(answers: list[str]) -> None:
    folded = [answer.strip().lower() for answer in answers if answer.strip()]
    winner = majority(answers)
    assert (winner == "") == (not folded)
    if folded:
        most = max(map(folded.count, folded))
        assert winner.lower() == next(answer for answer in folded if folded.count(answer) == most)
        assert winner in (answer.strip() for answer in answers)


def asked(text: str, answer: str, *boxes: Sequence[float]) -> Question:
    return Question("a.jpg", text, answer, boxes=boxes)


def test_the_same_words_with_the_same_answer_become_one_question_about_all_places() -> None:
    error = RecordError("schema", "bad")
    found = list(merged([asked("Which?", "Red", A), error, asked("What?", "", A), asked("Which? ", "red", A, B)]))
    assert found[0] is error
    assert [(each.text, each.boxes, each.flags) for each in found[1:]] == [
        ("Which?", [A, B], ["low_confidence"]),
        ("What?", (A,), ()),
    ]


def test_the_same_words_about_the_same_place_are_one_question_without_doubt() -> None:
    again, found = merged([asked("Which?", "red", A, B), asked("Which?", "red", B)])
    assert isinstance(again, RecordError) and isinstance(found, Question)
    assert (again.reason, again.question) == ("duplicate", "Which?")
    assert (found.boxes, found.flags) == ((A, B), ())


def test_the_same_words_with_another_answer_are_rejected_by_name() -> None:
    first, second = sorted(merged([asked("Which?", "red", A), asked("Which?", "blue", B)]), key=str)
    kept, rejected = (first, second) if isinstance(first, Question) else (second, first)
    assert (kept.answer, kept.boxes, kept.flags) == ("red", (A,), ())
    assert (rejected.reason, rejected.image, rejected.question) == ("ambiguous", "a.jpg", "Which?")
    assert "'red'" in rejected.message
