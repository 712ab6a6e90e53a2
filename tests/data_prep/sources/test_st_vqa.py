"""ST-VQA: text read in one image of two, questions that repeat, a path that leaves the root."""

import pytest

from tests.data_prep.fixtures import rows_of
from tests.data_prep.fixtures.st_vqa import make

PLANE, STREET = "coco-text/COCO_train2014_000000000081.jpg", "icdar/img_1.jpg"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("st_vqa"))


def test_region(result):
    row = result[0][PLANE, "Which airline is it?"]
    # Of 120x80: JAL .25 .5 .1 .1 is 30..42 x 40..48, Airlines .4 .5 .4 .1 is 48..96 x 40..48.
    assert row["boxes"] == [pytest.approx([30, 40, 42, 48]), pytest.approx([48, 40, 96, 48])]
    assert row["region"] == pytest.approx([30, 40, 96, 48])
    assert (row["method"], row["score"], row["flags"]) == ("ocr_match", 1, [])


@pytest.mark.parametrize(
    ("image", "question", "score", "flags"),
    [
        (PLANE, "What colour is it?", 0, ["no_evidence"]),
        (STREET, "What does the sign say?", 0, ["no_evidence", "no_ocr"]),
        (STREET, "What is asked in the test?", 0, ["no_evidence", "no_ocr"]),
    ],
)
def test_whole_image(result, image, question, score, flags):
    row = result[0][image, question]
    assert (row["region"], row["method"], row["score"], row["flags"]) == (None, "global", score, flags)


def test_rejections(result):
    rows, rejected = result
    assert len(rows) == 4
    assert sorted((line["record"], line["reason"]) for line in rejected) == [(3, "duplicate"), (4, "outside_root")]
