"""GQA: ids of question, answers and program, whole-image questions, ids and graphs that are missing."""

import json
from pathlib import Path

import pytest

from data_prep.sources.gqa import Gqa
from tests.data_prep.fixtures import rows_of
from tests.data_prep.fixtures.gqa import make
from tests.data_prep.fixtures.pictures import draw

LANDSCAPE, PORTRAIT = "images/2370799.jpg", "images/2370800.jpg"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("gqa"))


@pytest.mark.parametrize(
    ("image", "question", "region", "flags"),
    [
        # apple: 10, 20, 30, 25 as x, y, w, h; named by the annotation and by the program
        (LANDSCAPE, "Which color is the apple?", [10, 20, 10 + 30, 20 + 25], []),
        # table 5..105 x 40..78, apple 10..40 x 20..45, speck 50 +- half a pixel x 50..54
        (LANDSCAPE, "What is on the table?", [5, 20, 105, 78], ["degenerate"]),
        # wall: 60..140 x -4..46 of an image of 120x80; the bag is not there
        (LANDSCAPE, "Is there a bag on the wall?", [60, 0, 120, 46], ["oob_clipped"]),
        # man: 10..40 x 10..70 of 100x200, in a file of 50x100; there is no object 999
        (PORTRAIT, "Who stands by the dog?", [5, 5, 20, 35], ["missing_object", "size_mismatch"]),
    ],
)
def test_regions(result, image, question, region, flags):
    row = result[0][image, question]
    assert (row["region"], row["flags"]) == (region, flags)
    assert (row["method"], row["score"]) == ("human", 1)


def test_boxes_of_question_and_answers_once_each(result):
    # 101 of the question, 100 of the answer and again of the full answer, 103 of the full answer
    boxes = result[0][LANDSCAPE, "What is on the table?"]["boxes"]
    assert boxes == [[5, 40, 105, 78], [10, 20, 40, 45], [49.5, 50, 50.5, 54]]


@pytest.mark.parametrize("question", ["Do you see bags?", "Which room is it?", "Is it indoors?"])
def test_absent_objects_global_questions_and_scenes_need_the_whole_image(result, question):
    row = result[0][LANDSCAPE, question]
    assert (row["region"], row["method"], row["score"], row["flags"]) == (None, "global", 1, [])


def test_what_is_missing_is_named(result):
    rows, rejected = result
    for image, question in ((PORTRAIT, "What does the cat do?"), ("images/2370801.jpg", "Is the sky blue?")):
        row = rows[image, question]
        assert (row["region"], row["score"]) == (None, 0)
        assert {"missing_object", "no_evidence"} <= set(row["flags"])
    reasons = {line["record"]: (line["reason"], line["message"]) for line in rejected}
    assert reasons.keys() == {9, 10, 11}  # counted through both files
    assert reasons[9][0] == "schema"
    assert "scene graph of image 2370802.height" in reasons[9][1]
    assert reasons[10][0] == "no_image"
    assert reasons[11] == ("schema", "1.question: Input should be a valid string")
    assert len(rows) == 9


def test_a_test_split_has_neither_answers_nor_graphs(tmp_path: Path) -> None:
    def make_test(folder: Path) -> Gqa:
        draw(folder / "images" / "images" / "n1.jpg", 30, 20)
        path = folder / "testdev_balanced_questions.json"
        path.write_text(json.dumps({"20": {"isBalanced": True, "question": "Who is it?", "imageId": "n1"}}))
        return Gqa(annotations=str(path))

    rows, rejected = rows_of(make_test, tmp_path)
    assert not rejected
    row = rows["images/n1.jpg", "Who is it?"]
    assert (row["method"], row["score"], row["flags"]) == ("global", 0, ["no_evidence"])
    assert not (tmp_path / "regions" / "samples").exists()  # nothing to train on
