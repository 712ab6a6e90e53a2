import random

import numpy as np
import pytest

from train.evaluation.metrics.mme import COGNITION, PERCEPTION
from train.evaluation.metrics.rows import ScoredRow
from train.evaluation.metrics.table import METRICS

CHOICES = ("a cat", "a dog", "a fox", "a hen")
WORDS = ["yes", "no", "A", "B", "two dogs", "2", "the red", ""]


def questions(name, draws):
    """(question_id, targets, choices, group, image_key) of a benchmark, as its metric wants them."""
    if name == "pope":
        for index in range(90):
            yield str(index), (draws.choice(["yes", "no"]),), (), f"split {index % 3}", None
    elif name == "mme":
        for category in PERCEPTION + COGNITION:
            for index in range(12):
                target = ("Yes", "No")[index % 2]
                yield f"{category}/{index}", (target,), (), category, f"{index // 2}.jpg"
    elif name == "choice":
        for index in range(90):
            yield str(index % 30 + index // 30 * 1_000_000), (draws.choice("ABCD"),), CHOICES, "type", None
    else:
        for index in range(90):
            words = ["two", "red", "A", "2."]
            targets = (draws.choice(words),) * 5 + tuple(draws.choices(words, k=5))
            yield str(index), targets, (), "type", None


def scored(name, draws, answer):
    metric = METRICS[name]
    rows = []
    for question_id, targets, choices, group, image_key in questions(name, draws):
        given = answer(targets)
        score = metric.score(given, targets, choices)
        rows.append(ScoredRow(question_id, given, targets, choices, group, image_key, score))
    return rows


@pytest.mark.parametrize("name", METRICS)
def test_scores_are_shares_and_the_headline_is_in_the_summary(name):
    draws = random.Random(0)
    rows = scored(name, draws, lambda targets: draws.choice([*WORDS, *targets[:1] * 30]))
    metric = METRICS[name]
    assert all(0 <= row.score <= 1 for row in rows)
    assert 0 < metric.value(rows) < metric.full_score
    assert all(isinstance(value, float) for value in metric.summarize(rows).values())


@pytest.mark.parametrize("name", METRICS)
def test_right_answers_reach_the_full_score(name):
    rows = scored(name, random.Random(0), lambda targets: targets[0])
    assert METRICS[name].value(rows) == pytest.approx(METRICS[name].full_score)


@pytest.mark.parametrize("name", METRICS)
def test_what_a_bootstrap_draws_is_the_headline(name):
    draws = random.Random(1)
    rows = scored(name, draws, lambda targets: draws.choice([*WORDS, *targets * 2]))
    draws.shuffle(rows)
    metric, sampling = METRICS[name], METRICS[name].sampling
    strata = [sampling.ratio(summands.sum(axis=0)) for summands in sampling.strata(rows)]
    assert float(sampling.combine(np.array(strata), axis=0)) == pytest.approx(metric.value(rows))
    assert sum(len(summands) for summands in sampling.strata(rows)) == {"mme": 84, "choice": 30}.get(name, 90)
