"""TextVQA: fractions of Rosetta, pixels of TextOCR, votes of the annotators, what they could not answer."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep.common.errors import ConfigError
from data_prep.schema.question import LabelledBox
from data_prep.sources.textvqa import TextVqa, in_reading_order
from tests.data_prep.fixtures import annotated, rows_of
from tests.data_prep.fixtures.textvqa import make, make_textocr

PHONE, SIGN = "train_images/0054c91397f2fe05.jpg", "train_images/0ec0bf4b5f0d4a3c.jpg"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("textvqa"))


# Fractions of 200x100: a word at left, top, width, height covers 200 left .. 200 (left + width), 100 top .. .
@pytest.mark.parametrize(
    ("image", "question", "boxes", "score", "flags"),
    [
        # "dakota digital" has 5 of 10 votes, "dakota" 4; .25 .5 .25 .2 and, with a comma, .5 .5 .25 .25
        (PHONE, "what is the brand of this camera?", [[50, 50, 100, 70], [100, 50, 150, 75]], 1, []),
        # five each: "nokai" is first, but nowhere near (2 letters of 5 differ); "nokia" at .1 .2 .2 .1
        (PHONE, "who makes the phone?", [[20, 20, 60, 30]], 1, []),
        # "15" at 0 .8 and at .7 .8; the word "number" of the question stands at .8 .8, next to the second
        (PHONE, "what number is it?", [[140, 80, 160, 90]], 1, []),
        # nothing tells the two apart: the first, at half the score
        (PHONE, "how old is she?", [[0, 80, 20, 90]], 0.5, ["low_confidence"]),
        # .9 0 .2 .1 ends at 220 of 200
        (PHONE, "where is it?", [[180, 0, 200, 10]], 1, ["oob_clipped"]),
        # stated as 100x160, a file of 50x80: fractions .2 .25 .5 .25 are the same of both
        (SIGN, "what does the sign say?", [[10, 20, 35, 40]], 1, ["size_mismatch"]),
    ],
)
def test_regions(result, image, question, boxes, score, flags):
    row = result[0][image, question]
    assert row["method"] == "ocr_match"
    assert row["boxes"] == [pytest.approx(box) for box in boxes]
    assert (row["score"], row["flags"]) == (score, flags)


@pytest.mark.parametrize(
    ("image", "question", "flags"),
    [
        (PHONE, "what colour is it?", ["no_evidence"]),  # "nokia" is there, but two of ten say so
        (SIGN, "what left?", ["no_evidence", "size_mismatch"]),  # "gone" at 1.5 is outside
        ("train_images/00fa1e8a3ee2e7a5.jpg", "what is here?", ["no_evidence", "no_ocr"]),
    ],
)
def test_no_place(result, image, question, flags):
    row = result[0][image, question]
    assert (row["region"], row["method"], row["score"], row["flags"]) == (None, "global", 0, flags)


def test_unanswerable_is_rejected_and_the_test_split_has_no_evidence(result):
    rows, rejected = result
    assert [(line["record"], line["reason"], line["image"]) for line in rejected] == [
        (6, "unanswerable", PHONE),
        (7, "unanswerable", PHONE),
        (13, "unanswerable", PHONE),
    ]
    test = rows[PHONE, "what is the test?"]
    assert (test["method"], test["score"], test["flags"]) == ("global", 0, ["no_evidence"])
    assert rows[PHONE, "which word?"]["region"] == pytest.approx([20, 20, 60, 30])  # as of "who makes the phone?"
    assert len(rows) == 11


def test_the_answer_of_most_is_trained_on(tmp_path: Path) -> None:
    samples = pq.read_table(annotated(make(tmp_path), tmp_path) / "samples").to_pylist()
    said = {sample["messages"][0]["content"]: sample["messages"][1]["content"] for sample in samples}
    assert said["<image>\nwhat is the brand of this camera?"] == "dakota digital"
    assert said["<image>\nwho makes the phone?"] == "nokai"  # five votes each: the one given first
    assert said["<image>\nwhich word?"] == "NOKIA"  # spelled as the first did
    assert len(said) == 10  # not the one without an answer


def test_textocr(tmp_path: Path) -> None:
    rows, _ = rows_of(make_textocr, tmp_path)
    # Read by lines: Dakota 50..90 x 50..70, an unreadable word, Digital 100..150 x 52..72.
    camera = rows[PHONE, "what is the brand of this camera?"]
    assert camera["region"] == [50, 50, 150, 72]
    assert [50, 50, 90, 70] in camera["boxes"]
    # 20, 40, 50, 40 of 100x160 are 10..35 x 20..40 of the file's 50x80.
    assert (rows[SIGN, "what does the sign say?"]["region"], camera["flags"]) == ([10, 20, 35, 40], [])
    assert rows["train_images/00fa1e8a3ee2e7a5.jpg", "what is here?"]["flags"] == ["no_evidence", "no_ocr"]


def test_reading_order():
    # Centres at heights 10, 14 and 30; the first line ends at 20.
    words = [LabelledBox("c", (0, 25, 9, 35)), LabelledBox("b", (50, 5, 59, 15)), LabelledBox("a", (0, 8, 9, 20))]
    assert "".join(word.text for word in in_reading_order(words)) == "abc"


def test_one_kind_of_ocr(tmp_path: Path) -> None:
    reader = make(tmp_path)
    with pytest.raises(ConfigError, match="textocr: give either"):
        TextVqa(annotations=reader.annotations, rosetta=reader.rosetta, textocr=reader.rosetta)
