"""InfographicVQA: Textract's fractions in both forms, and text that is ambiguous, absent or damaged."""

import pytest

from tests.data_prep.fixtures import rows_of
from tests.data_prep.fixtures.infographicvqa import make


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("infographicvqa"))


@pytest.mark.parametrize(
    ("image", "question", "region", "score", "flags"),
    [
        # Of 100x400. "33%" at .1 .5 .2 .1 and at .1 .8 .2 .1; "Twitter" at .7 is nearer to the second.
        ("37313", "What percentage uses Twitter?", [10, 320, 30, 360], 1, []),
        ("37313", "What percentage is it?", [10, 200, 30, 240], 0.5, ["low_confidence"]),
        # Of 160x100, in Textract's own form: "2,500" at .25 .5 .5 .25
        ("20471", "How many were asked?", [40, 50, 120, 75], 1, []),
    ],
)
def test_regions(result, image, question, region, score, flags):
    row = result[0][f"infographicsvqa_images/{image}.jpeg", question]
    assert row["region"] == pytest.approx(region)
    assert (row["method"], row["score"], row["flags"]) == ("ocr_match", score, flags)


@pytest.mark.parametrize(
    ("question", "score", "flags"),
    [
        ("How many percent are those two together?", 0, ["no_evidence"]),
        ("What is asked in the test?", 0, ["no_evidence"]),
    ],
)
def test_whole_image(result, question, score, flags):
    row = result[0]["infographicsvqa_images/37313.jpeg", question]
    assert (row["region"], row["method"], row["score"], row["flags"]) == (None, "global", score, flags)


def test_damaged_text_is_named(result):
    rows, rejected = result
    assert [(line["record"], line["reason"]) for line in rejected] == [(4, "bad_ocr")]
    assert "30000.json.WORD.0.Geometry.BoundingBox.Left: Field required" in rejected[0]["message"]
    assert len(rows) == 5
