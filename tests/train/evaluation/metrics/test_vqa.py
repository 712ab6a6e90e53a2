import json
import random
import statistics

import pytest

from data_prep.common.errors import DataError
from tests.train.evaluation.metrics import lmms_reference, make_vqa_cases
from train.evaluation.metrics.vqa import evalai_normalize, vqa_accuracy, vqav2_accuracy, vqav2_normalize

CASES = json.loads(make_vqa_cases.FILE.read_text(encoding="utf-8"))


def test_normalizers_agree_with_the_recorded_reference():
    ours = [[text, evalai_normalize(text), vqav2_normalize(text)] for text, *_ in CASES["normalize"]]
    assert len(ours) > 400
    assert ours == CASES["normalize"]


def test_accuracies_agree_with_the_recorded_reference():
    seen = set()
    for answer, targets, textvqa, vqav2 in CASES["accuracy"]:
        assert vqa_accuracy(answer, targets) == pytest.approx(textvqa, abs=1e-12)
        if len(set(targets)) > 1:  # else VQAv2's own code does not normalise, and lmms-eval does
            assert vqav2_accuracy(answer, targets) == pytest.approx(vqav2, abs=1e-12)
        seen.add(round(textvqa, 3))
    assert seen == {0, 0.3, 0.6, 0.9, 1}


def test_both_agree_with_an_installed_reference_on_new_texts():
    if (folder := lmms_reference.package()) is None:
        pytest.skip("lmms-eval is not installed")
    processor = lmms_reference.answer_processor(folder)()
    pieces = random.Random(7)
    pool = [*make_vqa_cases.LETTERS, *processor.CONTRACTIONS, *processor.NUMBER_MAP]
    for _ in range(3000):
        text = "".join(pieces.choices([*pool, " ", " "], k=pieces.randint(1, 9)))
        assert evalai_normalize(text) == processor(text), text
        line = make_vqa_cases.one_line(text)
        untokenized = processor.process_digit_article(processor.process_punctuation(line))
        assert vqav2_normalize(text) == untokenized, text
    assert CASES["normalize"] == make_vqa_cases.normalized(folder)
    assert CASES["accuracy"] == make_vqa_cases.scored(folder)


def test_accuracy_is_the_mean_over_annotators_left_out():
    draws = random.Random(2)
    for _ in range(200):
        targets = draws.choices(["a cat", "dog", "2"], k=draws.randint(4, 12))
        left_out = [targets[:i] + targets[i + 1 :] for i in range(len(targets))]
        expected = statistics.mean(min(1, others.count("dog") / 3) for others in left_out)
        assert vqa_accuracy("Dog.", targets) == pytest.approx(expected)


@pytest.mark.parametrize(("matches", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_ten_annotators(matches, score):
    assert vqa_accuracy("Two.", ["2"] * matches + ["x"] * (10 - matches)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("text", "evalai", "vqav2"),
    [
        ("man's", "man 's", "man's"),  # only EvalAI's has 's as a word
        ("a,b", "ab", "b"),  # a comma vanishes or parts; then "a" is an article
        ("what?now", "whatnow", "what now"),
        ("1,000-2,000", "1000 2000", "10002000"),  # the number rule has no comma left to see
        ("1,,000", "1000", "1 000"),  # digit, comma, digit; copies with (,)+ make this 1000 too
        ("3.", "3", "3"),  # the period after a digit was meant to stay
        ("3.5", "3.5", "3.5"),
        ("." * 40, "." * 8, "." * 8),  # 32 at most
        ("Im", "im", "im"),  # the table's "Im" is never met in lower case
        ("wheres", "where's", "where's"),
        ("where's", "where 's", "where's"),  # so EvalAI's does not make these two one
        ("somebody'd", "somebodyd", "somebodyd"),  # the table's one entry the wrong way round
    ],
)
def test_where_the_copies_differ_and_what_is_odd_in_them(text, evalai, vqav2):
    assert (evalai_normalize(text), vqav2_normalize(text)) == (evalai, vqav2)


def test_vqav2_normalizes_only_where_annotators_differ():
    assert vqav2_accuracy("Two.", ["two"] * 10) == 0  # all wrote the same
    assert vqav2_accuracy("two", ["two"] * 10) == 1
    assert vqav2_accuracy(" two\n", ["two"] * 10) == 1  # blanks are no difference
    assert vqav2_accuracy("Two.", ["two"] * 9 + ["2"]) == 1
    assert vqa_accuracy("Two.", ["two"] * 10) == 1


@pytest.mark.parametrize("score", [vqa_accuracy, vqav2_accuracy])
def test_too_few_annotators_are_refused(score):
    with pytest.raises(DataError, match="4 annotators or more, not 3"):
        score("a", ["a", "a", "a"])
