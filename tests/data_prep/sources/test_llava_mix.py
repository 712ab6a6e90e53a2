"""LLaVA's mix: boxes in the text, joins to a native sidecar, the frame self-test, and bad files."""

from pathlib import Path

import pytest

from data_prep.common.errors import ConfigError
from data_prep.sources.llava_mix import LlavaMix
from tests.data_prep.fixtures import rows_of
from tests.data_prep.fixtures.llava_mix import COCO, RECORDS, SHORT, TALL, WIDE, make, mix, said
from tests.data_prep.fixtures.pictures import draw


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("mix"), images="decode")


# WIDE has 200 x 100 pixels: the square's side is 200, with (200 - 100) / 2 = 50 of padding above: x = 200 u,
# y = 200 v - 50. TALL has 100 x 200: x = 200 u - 50, y = 200 v.
@pytest.mark.parametrize(
    ("image", "question", "region", "flags"),
    [
        (WIDE, "Describe [0.10, 0.30, 0.50, 0.60].", [20, 10, 100, 70], []),  # 200 * .3 - 50 = 10, 200 * .6 - 50 = 70
        (WIDE, "Where is the sky?", [0, 0, 200, 20], ["leak_answer_box"]),  # 200 * .25 - 50 = 0, 200 * .35 - 50 = 20
        # 10, 30, 20, 50 and 40, 40, 50, 90: around both, 10, 30, 50, 90
        (WIDE, "How do [0.05, 0.40, 0.10, 0.50] and [0.20, 0.45, 0.25, 0.70] differ?", [10, 30, 50, 90], []),
        (TALL, "Where is the dog?", [10, 20, 90, 40], ["leak_answer_box"]),  # 200 * .3 - 50 = 10, 200 * .7 - 50 = 90
    ],
)
def test_boxes_in_the_text(result, image, question, region, flags) -> None:
    row = result[0][image, question]
    assert row["region"] == pytest.approx(region, abs=1e-4)
    assert (row["method"], row["score"], row["flags"]) == ("human", 1.0, flags)


def test_every_box_is_kept(result) -> None:
    boxes = result[0][WIDE, "How do [0.05, 0.40, 0.10, 0.50] and [0.20, 0.45, 0.25, 0.70] differ?"]["boxes"]
    assert [pytest.approx(box, abs=1e-4) for box in boxes] == [[10, 30, 20, 50], [40, 40, 50, 90]]


# VQAv2 finds the cat at 20, 10, 60, 40 of its file of 120 x 80 (test_vqav2.py); the mix's file has 240 x 160, so that
# all doubles: 40, 20, 120, 80.
def test_a_turn_takes_the_region_of_its_native_source(result) -> None:
    row = result[0][COCO, f"What is the cat sitting on?{SHORT}"]
    assert (row["region"], row["method"]) == ([40, 20, 120, 80], "object_match")
    assert (row["width"], row["height"], row["turn"]) == (240, 160, 0)
    assert row["flags"] == ["size_mismatch"]
    later = result[0][COCO, "Is it raining?"]
    assert (later["region"], later["method"], later["turn"]) == (None, "global", 1)
    unknown = result[0][COCO, "What else?"]
    assert (unknown["method"], unknown["flags"], unknown["turn"]) == ("global", ["no_evidence"], 2)


@pytest.mark.parametrize(
    ("name", "flags"), [("gif.jpg", ["format_mismatch"]), ("cmyk.jpg", ["cmyk"]), ("rotated.jpg", ["exif_rotated"])]
)
def test_odd_files_are_flagged_and_their_stored_pixels_count(result, name, flags) -> None:
    row = result[0][f"bad/{name}", "What is [0.50, 0.50, 0.75, 0.60]?"]
    assert (row["width"], row["height"], row["flags"]) == (200, 100, flags)
    assert row["region"] == pytest.approx([100, 50, 150, 70], abs=1e-4)  # 200 * .5 - 50 = 50, 200 * .6 - 50 = 70


def test_what_is_rejected_and_why(result) -> None:
    assert {(line["reason"], line["image"]) for line in result[1]} == {
        ("no_image", "ocr_vqa/images/absent.jpg"),
        ("outside_root", "../outside.jpg"),
        ("outside_root", "/etc/passwd"),
        ("url", "https://example.org/a.jpg"),
        ("duplicate", WIDE),
        ("bad_image", "bad/cut.jpg"),
        ("too_large", "bad/bomb.png"),
        ("too_large", "bad/large.png"),
    }
    assert len(result[1]) == 8


def test_only_decoding_finds_a_truncated_file(tmp_path: Path) -> None:
    _, rejected = rows_of(make, tmp_path, images="header")
    assert "bad/cut.jpg" not in {line["image"] for line in rejected}


def test_text_only_records_have_no_row_and_ids_may_repeat(result) -> None:
    assert not any("two and two" in question for _, question in result[0])
    assert [record["id"] for record in RECORDS].count("000000000009") == 2
    assert {image for image, _ in result[0]} >= {COCO, TALL}


# v = 0.95 lies in the padding of a square around 200 x 100, which ends at .25 and .75: five such boxes are fractions of
# the image itself, x = 200 u, y = 100 v. Between the bars nothing tells, and LLaVA's own frame is taken.
@pytest.mark.parametrize(
    ("frame", "second", "region"),
    [
        ("auto", "0.95", [20, 30, 100, 60]),
        ("auto", "0.60", [20, 10, 100, 70]),
        ("padded_square", "0.95", [20, 10, 100, 70]),
        ("unit", "0.60", [20, 30, 100, 60]),
    ],
)
def test_the_frame_is_measured_unless_told(tmp_path: Path, frame, second, region) -> None:
    def make_two(folder: Path) -> LlavaMix:
        draw(folder / "images" / WIDE, 200, 100)
        asked = [f"<image>\nAt [0.{left}, 0.30, 0.50, {second}]?" for left in range(10, 15)]
        asked.append("<image>\nAt [0.10, 0.30, 0.50, 0.60]?")
        return mix(
            folder, [{"id": "1", "image": WIDE, "conversations": said(each, "It.")} for each in asked], frame=frame
        )

    rows, _ = rows_of(make_two, tmp_path)
    assert rows[WIDE, "At [0.10, 0.30, 0.50, 0.60]?"]["region"] == pytest.approx(region, abs=1e-4)


def test_a_question_about_several_images_names_all(tmp_path: Path) -> None:
    record = {"id": "1", "image": [WIDE, TALL], "conversations": said("<image><image>\nWhich is red?", "The first.")}
    reader = mix(tmp_path, [record])
    (question,) = reader.questions(reader.parse(next(reader.records())))
    assert (question.image, list(question.other_images)) == (WIDE, [TALL])


@pytest.mark.parametrize(
    "record",
    [
        {"id": "1", "image": WIDE, "conversations": None},
        {"id": "1", "image": WIDE, "conversations": [["human", "What?"]]},
        {"id": "1", "image": WIDE, "conversations": []},
        {"id": "1", "image": WIDE, "conversations": said("What?")},
        {"id": "1", "image": WIDE, "conversations": said("<image><image>What?", "It.")},
        {"id": "1", "image": 7, "conversations": said("What?", "It.")},
        ["no", "record"],
        None,
    ],
)
def test_a_record_of_another_form_is_rejected_alone(tmp_path: Path, record) -> None:
    def make_broken(folder: Path) -> LlavaMix:
        draw(folder / "images" / WIDE, 200, 100)
        return mix(folder, [record, {"id": "2", "image": WIDE, "conversations": said("<image>\nGood?", "Yes.")}])

    rows, rejected = rows_of(make_broken, tmp_path)
    assert list(rows) == [(WIDE, "Good?")]
    assert [line["record"] for line in rejected] == [0]


@pytest.mark.parametrize("spec", ["coco/", "=native", "coco/=/nowhere"])
def test_joins_of_another_form_are_refused(tmp_path: Path, spec: str) -> None:
    with pytest.raises(ConfigError, match="joins"):
        mix(tmp_path, [], joins=[spec])
