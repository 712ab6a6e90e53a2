import random

import pytest

from data_prep.common.errors import DataError
from tests.train.evaluation.metrics import lmms_reference
from train.evaluation.metrics.mme import COGNITION, PERCEPTION, mme, read_answer, summarize
from train.evaluation.metrics.table import METRICS


@pytest.fixture
def pair(row):
    """The two questions of an image, with their scores."""

    def make(category, image, first, second):
        return [
            row(f"{category}/{image}/{number}", "", "yes", score, category, image)
            for number, score in enumerate((first, second))
        ]

    return make


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Yes", "yes"),
        ("no.", "no"),
        ("No, it is not.", "no"),
        ("Not sure", "no"),  # the first four letters hold "no"
        ("Know", "no"),
        ("Eyes", "yes"),
        ("It is, yes", None),
        ("y", None),  # lmms-eval reads yes here
        ("", None),
    ],
)
def test_answers_are_read_by_their_first_four_letters(answer, read):
    assert read_answer(answer) == read
    assert mme(answer, ["Yes"]) == (read == "yes")
    assert mme(answer, ["No"]) == (read == "no")


def test_a_category_is_accuracy_and_images_with_both_right(pair):
    rows = [*pair("count", "a", 1, 1), *pair("count", "b", 1, 0), *pair("count", "c", 0, 0), *pair("count", "d", 1, 1)]
    summary = summarize(rows)
    assert summary["acc/count"] == 5 / 8
    assert summary["acc_plus/count"] == 2 / 4
    assert summary["count"] == summary["perception"] == summary["total"] == 112.5
    assert summary["cognition"] == 0


def test_perfect_answers_make_2000_and_800(pair):
    rows = [row for category in PERCEPTION + COGNITION for row in pair(category, "1.jpg", 1, 1)]
    summary = summarize(rows)
    assert (summary["perception"], summary["cognition"], summary["total"]) == (2000, 800, 2800)
    assert METRICS["mme"].full_score == 2800


def test_an_image_of_the_same_name_in_another_category_is_another(pair):
    summary = summarize([*pair("count", "1.jpg", 1, 1), *pair("OCR", "1.jpg", 0, 0)])
    assert (summary["count"], summary["OCR"]) == (200, 0)


def test_images_without_two_questions_and_unknown_categories_are_refused(pair):
    with pytest.raises(DataError, match=r"count/a it is 1"):
        summarize(pair("count", "a", 1, 1)[:1])
    with pytest.raises(DataError, match=r"cats/a/0: cats is not a category"):
        summarize(pair("cats", "a", 1, 1))


@pytest.mark.parametrize("targets", [["maybe"], ["yes", "no"], []])
def test_other_targets_are_refused(targets):
    with pytest.raises(DataError):
        mme("yes", targets)


def test_agrees_with_an_installed_reference(row):
    if (folder := lmms_reference.package()) is None:
        pytest.skip("lmms-eval is not installed")
    names = ("parse_pred_ans", "eval_type_dict", "mme_process_results", "mme_aggregate_results")
    task = lmms_reference.definitions(folder, "tasks/mme/utils.py", *names)
    assert task.eval_type_dict == {"Perception": list(PERCEPTION), "Cognition": list(COGNITION)}
    draws, rows = random.Random(0), []
    theirs = {"mme_perception_score": [], "mme_cognition_score": []}
    for category in PERCEPTION + COGNITION:
        for image in range(30):
            for number, target in enumerate(("Yes", "No")):
                answer = draws.choice(["Yes", "no", "Yes, it is", "No.", "maybe", "Not so"])
                doc = {"answer": target, "category": category, "question_id": image}
                for name, result in task.mme_process_results(doc, [answer]).items():
                    theirs[name].append(result)
                key = f"{category}/{image}/{number}"
                rows.append(row(key, answer, target, mme(answer, [target]), category, str(image)))
    draws.shuffle(rows)
    summary = summarize(rows)
    for name in ("perception", "cognition"):
        assert summary[name] == pytest.approx(task.mme_aggregate_results(theirs[f"mme_{name}_score"]))
