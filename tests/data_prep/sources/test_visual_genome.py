"""Visual Genome: the mapped region, else the objects; phrases with their boxes."""

import pytest

from data_prep.sources.visual_genome import VisualGenome
from tests.data_prep.fixtures import rows_of
from tests.data_prep.fixtures.visual_genome import make, make_regions

WIDE, TALL = "VG_100K_2/1.jpg", "VG_100K/2.jpg"  # as the urls of image_data say


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("genome"))


@pytest.fixture(scope="module")
def phrases(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make_regions, tmp_path_factory.mktemp("phrases"))


@pytest.mark.parametrize(
    ("image", "question", "region", "flags"),
    [
        # region 5: 20, 10, 80 wide, 60 high, though the question names object 100 as well
        (WIDE, "What is mapped?", [20, 10, 100, 70], []),
        # object 100: 30, 20, 30 + 40, 20 + 50; object 101: 120, 40, 120 + 30, 40 + 20
        (WIDE, "What are both?", [30, 20, 150, 70], []),
        (WIDE, "What is missing?", [30, 20, 70, 70], ["missing_object"]),
        (WIDE, "What is left of the edge?", [0, 20, 30, 70], ["oob_clipped"]),  # x from -10 to 30
        (WIDE, "What is turned?", [40, 20, 60, 50], ["swapped_corners"]),  # 20 to the left of 60
        (WIDE, "What is mapped to nothing?", [30, 20, 70, 70], []),  # no region 12345: object 100
        # of clock 100 and of clock 101, with one answer: 30, 20, 70, 70 and 120, 40, 150, 60
        (WIDE, "What time is it?", [30, 20, 150, 70], ["low_confidence"]),
        (WIDE, "What color is the clock?", [30, 20, 70, 70], []),  # of clock 100, which was asked of first
        (WIDE, "Why?", None, ["no_evidence"]),
        (TALL, "What is high?", [0, 10, 100, 50], []),
    ],
)
def test_regions(result, image, question, region, flags) -> None:
    row = result[0][image, question]
    assert (row["region"], row["flags"]) == (region, flags)
    assert row["method"] == ("global" if region is None else "human")


def test_rejected(result) -> None:
    assert [(line["record"], line["reason"]) for line in result[1]] == [
        (0, "schema"),  # object 104 has a text for y
        (0, "ambiguous"),  # the other clock's color
        (1, "schema"),  # a question without text
        (3, "schema"),  # an image without width
        (4, "no_image_data"),
    ]
    assert (result[1][0]["image"], result[1][0]["question"]) == (WIDE, "What is bad?")
    assert (result[1][1]["image"], result[1][1]["question"]) == (WIDE, "What color is the clock?")


def test_phrases(phrases) -> None:
    rows, rejected = phrases
    assert rows[WIDE, "a red roof"]["region"] == [20, 10, 100, 70]  # 20 + 80, 10 + 60
    # two clouds, 0, 0, 20, 10 and 150, 5, 190, 15, by the same words
    assert rows[WIDE, "a cloud"]["region"] == [0, 0, 190, 15]
    assert rows[WIDE, "a cloud"]["flags"] == ["low_confidence"]
    assert rows[WIDE, "the edge"]["region"] == [0, 10, 25, 30]  # -5 + 30 = 25
    assert rows[WIDE, "the edge"]["flags"] == ["oob_clipped"]
    assert rows[TALL, "blue sky"]["region"] == [0, 0, 100, 50]
    assert (len(rows), rejected) == (4, [])


def test_without_side_tables_the_questions_are_global(tmp_path) -> None:
    def bare(folder) -> VisualGenome:
        full = make(folder)
        return VisualGenome(annotations=full.annotations, image_data=full.image_data)

    rows, _ = rows_of(bare, tmp_path)
    assert {row["method"] for row in rows.values()} == {"global"}
    assert rows[WIDE, "What is mapped?"]["flags"] == ["no_evidence"]
