import random
from collections import Counter

import pytest

from data_prep.common.errors import DataError
from tests.train.evaluation.metrics import lmms_reference
from train.evaluation.metrics.pope import pope, says_yes, summarize
from train.evaluation.metrics.table import METRICS

ANSWERS = ["Yes", "yes", "No", "no", "Yes, there is.", "No, there is not.", "There is no dog", "", "maybe"]


@pytest.fixture
def scored(row):
    def make(answers_and_targets, group=None):
        return [
            row(str(index), answer, target, pope(answer, [target]), group)
            for index, (answer, target) in enumerate(answers_and_targets)
        ]

    return make


@pytest.mark.parametrize(
    ("answer", "yes"),
    [
        ("Yes", True),
        ("No", False),
        ("no", False),
        ("There is not a dog", False),
        ("No, there is a cat", False),  # without its comma the word is No
        ("Yes. There is no dog", True),  # the first sentence alone
        ("NO", True),  # upper case is none of the three words
        ("none", True),
        ("no\n", True),  # words end at blanks alone
        ("", True),
        ("I do not know", False),
    ],
)
def test_answers_are_read_as_the_benchmark_reads_them(answer, yes):
    assert says_yes(answer) is yes
    assert pope(answer, ["yes"]) == yes
    assert pope(answer, ["No"]) == (not yes)


def test_one_split_agrees_with_counting(scored):
    draws = random.Random(0)
    for _ in range(50):
        pairs = [(draws.choice(ANSWERS), draws.choice(["yes", "no"])) for _ in range(40)]
        counts = Counter((says_yes(answer), target == "yes") for answer, target in pairs)
        precision = counts[True, True] / (counts[True, True] + counts[True, False])
        recall = counts[True, True] / (counts[True, True] + counts[False, True])
        assert summarize(scored(pairs)) == pytest.approx(
            {
                "accuracy": (counts[True, True] + counts[False, False]) / 40,
                "precision": precision,
                "recall": recall,
                "f1": 2 * precision * recall / (precision + recall),
                "yes_ratio": (counts[True, True] + counts[True, False]) / 40,
            }
        )


def test_splits_count_the_same_whatever_their_size(scored):
    good = scored([("yes", "yes")] * 30, "random")
    bad = scored([("no", "yes"), ("yes", "no")], "popular")
    summary = summarize([*good, *bad])
    assert (summary["f1/random"], summary["f1/popular"], summary["f1"]) == (1, 0, 0.5)
    assert METRICS["pope"].value([*good, *bad]) == 0.5


def test_no_yes_at_all_is_zero_not_an_error(scored):
    assert summarize(scored([("no", "no")]))["f1"] == 0


def test_lmms_eval_pools_and_counts_targets_in_its_yes_ratio(scored):
    if (folder := lmms_reference.package()) is None:
        pytest.skip("lmms-eval is not installed")
    names = [f"pope_aggregate_{name}" for name in ("accuracy", "precision", "recall", "f1_score", "yes_ratio")]
    task = lmms_reference.definitions(folder, "tasks/pope/utils.py", "pope_process_results", *names)
    task_score, draws = task.pope_process_results, random.Random(1)
    for _ in range(20):
        pairs = [(draws.choice(["Yes", "no"]), draws.choice(["yes", "no"])) for _ in range(40)]
        theirs = [task_score({"answer": target, "question_id": 0}, [answer]) for answer, target in pairs]
        ours = summarize(scored(pairs))
        for name in ("accuracy", "precision", "recall"):
            aggregate = getattr(task, f"pope_aggregate_{name}")
            assert ours[name] == pytest.approx(aggregate([result[f"pope_{name}"] for result in theirs]))
        assert ours["f1"] == pytest.approx(task.pope_aggregate_f1_score([result["pope_f1_score"] for result in theirs]))
        their_ratio = task.pope_aggregate_yes_ratio([result["pope_yes_ratio"] for result in theirs])
        assert their_ratio == sum(target == "yes" for _, target in pairs) / 40  # whatever the model says
        assert ours["yes_ratio"] == sum(answer == "Yes" for answer, _ in pairs) / 40


@pytest.mark.parametrize("targets", [["maybe"], ["yes", "no"], []])
def test_other_targets_are_refused(targets):
    with pytest.raises(DataError):
        pope("yes", targets)
