"""Answers and objects found in an image, against slow searches through all runs of words and all names."""

from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from data_prep.derivation.text_match import (
    EXTRA_WORDS,
    MAX_ANSWER_WORDS,
    MIN_SIMILARITY,
    Match,
    exact,
    match_answer,
    match_objects,
    singular_words,
    squeeze,
)
from data_prep.schema.question import LabelledBox

# Few letters, so that words are often similar by chance.
word_texts = st.text("abAB.-_ ", max_size=5)
boxes = st.tuples(*[st.integers(0, 50)] * 4)
read_words = st.lists(st.builds(LabelledBox, word_texts, boxes), max_size=8)
SENTENCE = "one two three four five six seven eight nine ten eleven twelve thirteen"


@st.composite
def answers_in_text(draw: st.DrawFn) -> tuple[list[str], list[LabelledBox], str]:
    """Answers, the words read, a question: the answers are runs of the words, damaged in places."""
    words, answers = draw(read_words), draw(st.lists(word_texts, max_size=2))
    if words:
        start = draw(st.integers(0, len(words) - 1))
        run = draw(st.sampled_from([" ", "", "-"])).join(word.text for word in words[start : start + 3])
        cut = draw(st.integers(0, len(run)))
        answers.append(run[:cut] + draw(st.sampled_from(["", "", "b", "c"])) + run[cut + draw(st.integers(0, 1)) :])
    return answers, words, " ".join(draw(st.lists(word_texts | st.sampled_from([word.text for word in words] or [""]))))


def letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def distance(first: str, second: str) -> int:
    """Levenshtein's, by the whole table."""
    table = {(i, 0): i for i in range(len(first) + 1)} | {(0, j): j for j in range(len(second) + 1)}
    for i, a in enumerate(first, start=1):
        for j, b in enumerate(second, start=1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a != b))
    return table[len(first), len(second)]


def slow_match(answers: Sequence[str], words: Sequence[LabelledBox], question: str) -> Match | None:
    for answer in answers:
        target, count = letters(answer), len(answer.split())
        if not target or count > MAX_ANSWER_WORDS:
            continue
        found = []
        for start in range(len(words)):
            for end in range(start + 1, len(words) + 1):
                blank_ends = not letters(words[start].text) or not letters(words[end - 1].text)
                if blank_ends or abs(end - start - count) > EXTRA_WORDS:
                    continue
                text = letters("".join(word.text for word in words[start:end]))
                longest = max(len(text), len(target))
                similarity = Fraction(longest - distance(text, target), longest)
                if similarity >= Fraction("0.8"):
                    found.append((-similarity, end - start, start))
        if found:
            least = min(place[:2] for place in found)
            return slow_choice([place[2] for place in found if place[:2] == least], least, words, question)
    return None


def slow_choice(
    starts: Sequence[int], least: tuple[Fraction, int], words: Sequence[LabelledBox], question: str
) -> Match:
    """The run, of `least[1]` words from one of `starts`, that has a word nearest to a word of the question."""
    runs = [range(start, start + least[1]) for start in starts]
    asked = [letters(word) for word in question.split() if len(letters(word)) > 2]
    inside = {index for run in runs for index in run}
    anchors = [word for index, word in enumerate(words) if letters(word.text) in asked and index not in inside]
    chosen = runs[0]
    if len(runs) > 1 and anchors:
        chosen = min(runs, key=lambda run: min(squared(words[i].box, anchor.box) for i in run for anchor in anchors))
    return Match(tuple(words[i].box for i in chosen), float(-least[0]), len(runs) > 1 and not anchors)


def squared(first: Sequence[float], second: Sequence[float]) -> float:
    """Distance between the centres of two boxes, squared, in half pixels."""
    return sum((first[i] + first[i + 2] - second[i] - second[i + 2]) ** 2 for i in (0, 1))


@settings(max_examples=200, deadline=None)
@given(case=answers_in_text())
def test_answer_agrees_with_slow_search(case: tuple[list[str], list[LabelledBox], str]) -> None:
    found, expected = match_answer(*case), slow_match(*case)
    event("nothing" if expected is None else "ambiguous" if expected.ambiguous else "clear")
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        assert (found.boxes, found.ambiguous) == (expected.boxes, expected.ambiguous)
        assert found.score == pytest.approx(expected.score)
        assert MIN_SIMILARITY <= found.score <= 1


@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=20))
def test_squeeze_keeps_letters_and_digits_alone(text: str) -> None:
    assert squeeze(text) == letters(text)
    assert squeeze(f" {text}\t!_") == squeeze(text)


def line(*texts: str) -> list[LabelledBox]:
    """Words of 10x10 pixels side by side."""
    return [LabelledBox(text, (10 * index, 0, 10 * index + 10, 10)) for index, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("answers", "texts", "places"),
    [
        (["coca cola"], ["drink", "Coca-Cola", "cold"], [1]),  # OCR joined two words
        (["coca-cola"], ["drink", "Coca", "Cola", "cold"], [1, 2]),  # or split one
        (["12:30"], ["12", ":", "30"], None),  # but not into three
        (["pepsi", "cola"], ["Coca", "Cola"], [1]),  # the second answer, where the first is not to be seen
        (["cola", "coca"], ["Coca", "Cola"], [1]),  # else the first, whatever stands first
        (["stop"], ["5top", "stop"], [1]),  # the better of two
        (["house"], ["hausa"], None),  # 2 letters of 5 differ
        (["house"], ["hause"], [0]),  # 1 of 5
        (["..."], ["...", "a"], None),  # nothing to look for
        (["20000"], ["10000", "200000"], None),  # 4 digits of 5 are another number
        (["20000"], ["20,000"], [0]),
        (["1.5"], ["15", "1.5"], [1]),
        (["15"], ["1.5", "1", "5"], None),  # two numbers are not one
        (["-5"], ["5", "-5"], [1]),
        (["5"], ["-5"], None),
        (["50%"], ["50", "50%"], [1]),
        (["50%"], ["50", "%"], [0, 1]),
        (["50"], ["50%"], None),
        (["20"], ["$20"], [0]),
        (["$20"], ["in", "20."], [1]),
        (["Windows 10"], ["windows", "10"], [0, 1]),
        (["Windows 10"], ["windows", "11"], None),
        ([SENTENCE], SENTENCE.split(), None),  # a sentence is no place
    ],
)
def test_answer_by_hand(answers: list[str], texts: list[str], places: list[int] | None) -> None:
    words = line(*texts)
    found = match_answer(answers, words, "what is it?")
    assert (found and list(found.boxes)) == (places and [words[place].box for place in places])


@pytest.mark.parametrize(
    "same",
    [
        ["-$1,500.5", "-1500.5", "\u22121,500.5"],
        ["50 %", "50%"],
        ["15", "15.", "(15)", "\u20ac15", "#15"],
        ["1,5", "1.5"],
        ["2019-2020", "2019 - 2020"],
        ["1/8/93"],
        ["18/93"],
        ["12:30"],
        ["1230", "1,230"],
        [".5"],
        ["5", "5,"],
        ["-5"],
        ["Route 66", "ROUTE-66", "route66"],
        ["1 5"],
    ],
)
def test_numbers_that_are_the_same_and_those_that_are_not(same: list[str]) -> None:
    assert len({exact(text) for text in same}) == 1
    others = {"-$1,500.5", "50%", "15", "1.5", "2019-2020", "1/8/93", "18/93", "12:30", "1230", ".5", "5", "-5", "1 5"}
    assert all(exact(other) != exact(same[0]) for other in others - set(same))


def test_a_word_of_the_question_tells_places_apart() -> None:
    words = line("5", "apples", "x", "x", "pears", "5")
    for question, place in (("How many apples?", 0), ("How many pears?", 5)):
        found = match_answer(["5"], words, question)
        assert found == Match((words[place].box,), 1.0, ambiguous=False)
    assert match_answer(["5"], words, "How many plums?") == Match((words[0].box,), 1.0, ambiguous=True)


def test_huge_boxes_raise_nothing() -> None:
    words = [
        LabelledBox("5", (0, 0, 1e308, 1e308)),
        LabelledBox("5", (-1e308, 0, 0, 0)),
        LabelledBox("total", (0, 0, 9, 9)),
    ]
    found = match_answer(["5"], words, "What is the total?")
    assert found is not None


# How English forms them, told here and not by a stemmer.
PLURALS = {
    "apple": "apples",
    "bus": "buses",
    "knife": "knives",
    "mouse": "mice",
    "cherry": "cherries",
    "wine glass": "wine glasses",
    "bench": "benches",
    "sheep": "sheep",
}
names = st.sampled_from(sorted(PLURALS))


@settings(deadline=None)
@given(
    named=st.lists(st.tuples(names, st.booleans()), max_size=3),
    there=st.lists(st.builds(LabelledBox, names, boxes), max_size=6),
    counting=st.booleans(),
)
def test_objects_that_the_question_names(
    named: list[tuple[str, bool]], there: list[LabelledBox], counting: bool
) -> None:
    texts = [PLURALS[name] if plural else name for name, plural in named]
    question = f"{'How many' if counting else 'What colour are the'} {' and the '.join(texts)} here?"
    found = match_objects(question, there)
    kinds = {name for name, _ in named} & {name for name, _ in there}
    assert (found is None) == (not kinds)
    if found is not None:
        assert sorted(found.boxes) == sorted(box for name, box in there if name in kinds)
        assert found.score == pytest.approx(1 / len(kinds))
        several = any(sum(name == kind for name, _ in there) > 1 for kind in kinds)
        assert found.ambiguous == (several and not counting)


@settings(deadline=None)
@given(name=names, other=names)
def test_plural_equals_singular_and_nothing_else(name: str, other: str) -> None:
    assume(name != other)
    assert singular_words(PLURALS[name].upper()) == singular_words(name)
    assert singular_words(name) != singular_words(other)


@pytest.mark.parametrize(
    ("question", "matches"),
    [
        ("What does the woman hold?", True),
        ("What do the ladies wear?", True),
        ("What do the children eat?", True),
        ("Does someone hold the baby?", True),
        ("Where is the mango?", False),
    ],
)
def test_persons_by_other_names(question: str, matches: bool) -> None:
    assert (match_objects(question, [LabelledBox("person", (0, 0, 9, 9))]) is not None) == matches


def test_a_name_is_found_as_whole_words() -> None:
    assert match_objects("Is it scary?", [LabelledBox("car", (0, 0, 9, 9))]) is None
    assert match_objects("Is there wine in the glass?", [LabelledBox("wine glass", (0, 0, 9, 9))]) is None
