"""VQAv2: answers joined by question, objects of COCO that the question names."""

import pickle
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep.common.errors import ConfigError
from data_prep.sources.coco_objects import CocoQuestions
from data_prep.sources.vqav2 import VqaV2
from tests.data_prep.fixtures import annotated, rows_of
from tests.data_prep.fixtures.vqav2 import make

NINE, TWENTY_FIVE = "COCO_train2014_000000000009.jpg", "COCO_train2014_000000000025.jpg"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("vqav2"))


# In BOXES of the fixture, x, y, width, height: the cat 20, 10, 40, 30 ends at x = 20 + 40, y = 10 + 30; two persons
# 5, 5, 20, 60 and 40, 15, 20, 45 lie within x 5 .. 40 + 20 and y 5 .. 5 + 60; the car 30.5, 70, 40.25, 20.
@pytest.mark.parametrize(
    ("image", "question", "region", "score", "flags"),
    [
        (NINE, "What is the cat sitting on?", [20, 10, 60, 40], 1.0, []),
        (NINE, "Is it raining?", None, 0.0, ["no_evidence"]),
        (TWENTY_FIVE, "How many people are there?", [5, 5, 60, 65], 1.0, []),  # counting: all of them
        (TWENTY_FIVE, "What is the man wearing?", [5, 5, 60, 65], 0.5, ["low_confidence"]),  # one of the two
        (TWENTY_FIVE, "What colour is the car?", [30.5, 70, 70.75, 90], 1.0, []),
        (TWENTY_FIVE, "Is the cat black?", None, 0.0, ["no_evidence"]),  # that image has no cat
    ],
)
def test_regions(result, image, question, region, score, flags) -> None:
    row = result[0][image, question]
    assert (row["region"], row["score"], row["flags"]) == (region, score, flags)
    assert row["method"] == ("global" if region is None else "object_match")


def test_rejected(result) -> None:
    assert [(line["reason"], line["question"]) for line in result[1]] == [
        ("no_answer", "Who answered this?"),
        ("no_image", "Where is the image?"),
    ]


def test_answers_are_the_most_frequent_ones_and_the_first_of_equals(tmp_path: Path) -> None:
    samples = pq.read_table(annotated(make(tmp_path), tmp_path) / "samples").to_pylist()
    said = {sample["messages"][0]["content"]: sample["messages"][1]["content"] for sample in samples}
    assert said["<image>\nHow many people are there?"] == "2"
    assert said["<image>\nWhat is the cat sitting on?"] == "table"
    assert said["<image>\nWhat is the man wearing?"] == "hat"  # hat, coat, coat, hat


def test_a_test_split_has_no_answers_and_needs_no_image_to_tell_sizes(tmp_path: Path) -> None:
    def without_answers(folder: Path) -> VqaV2:
        full = make(folder)
        return VqaV2(question_file=full.question_file, instances=full.instances)  # type: ignore[attr-defined]

    rows, rejected = rows_of(without_answers, tmp_path, images="trust", image_root=None)
    assert (rows[NINE, "Who answered this?"]["width"], rows[NINE, "Who answered this?"]["height"]) == (120, 80)
    assert [line["reason"] for line in rejected] == ["no_size"]  # of image 33, which COCO does not know


def test_a_prepared_reader_goes_to_another_process(tmp_path: Path) -> None:
    reader = make(tmp_path).prepare(tmp_path / "tables", None)
    before = [question for raw in reader.records() for question in _tried(reader, raw)]
    again = pickle.loads(pickle.dumps(reader))
    assert [question for raw in again.records() for question in _tried(again, raw)] == before


def _tried(reader, raw):
    try:
        return list(reader.questions(reader.parse(raw)))
    except ValueError as error:
        return [str(error)]


@pytest.mark.parametrize("name", ["image.jpg", "{image}.jpg", "{image_id:s}.jpg", "{image_id", "{image_id.gone}.jpg"])
def test_a_name_that_does_not_tell_images_apart_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "questions.json"
    path.write_text("{}")
    with pytest.raises(ConfigError, match="image_name: expected"):
        VqaV2(question_file=str(path), image_name=name)
    assert issubclass(VqaV2, CocoQuestions)
