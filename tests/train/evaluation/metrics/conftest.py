from collections.abc import Callable

import pytest

from train.evaluation.metrics.rows import ScoredRow


@pytest.fixture
def row() -> Callable[..., ScoredRow]:
    """A question with one target; what is not given does not matter."""

    def make(question_id="1", answer="", target="", score=0.0, group=None, image_key=None):
        return ScoredRow(question_id, answer, (target,), (), group, image_key, float(score))

    return make
