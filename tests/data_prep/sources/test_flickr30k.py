"""Flickr30k Entities: phrases, entities with several boxes, corners counted from 1."""

from pathlib import Path

import pytest

from data_prep.sources.flickr30k import Flickr30k
from tests.data_prep.fixtures import rows_of
from tests.data_prep.fixtures.flickr30k import make


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory):
    return rows_of(make, tmp_path_factory.mktemp("flickr30k"))


# Pixels xmin .. xmax counted from 1 and inclusive are xmin - 1 .. xmax half-open.
@pytest.mark.parametrize(
    ("image", "phrase", "boxes", "method", "flags"),
    [
        # 1, 11, 20, 60 and 31, 5, 50, 60
        ("1000092795", "Two young guys", [[0, 10, 20, 60], [30, 4, 50, 60]], "human", []),
        ("1000092795", "shaggy hair", [[30, 4, 50, 60]], "human", []),  # the second of them has two names
        ("1000092795", "their hands", [[30, 4, 50, 60]], "human", []),
        ("1000092795", "the yard", [], "global", []),  # scene
        ("1000092795", "a plan", [], "global", []),  # nobox
        ("1000092795", "a ghost", [], "global", ["missing_object", "no_evidence"]),
        # 50, 70, 75, 90 of 60x80
        ("1000092795", "the bus", [[49, 69, 60, 80]], "human", ["oob_clipped"]),
        # the same words for two people
        ("36979", "A man", [[0, 0, 10, 10]], "human", ["low_confidence"]),
        ("36979", "a man", [[20, 20, 40, 40]], "human", ["low_confidence"]),
    ],
)
def test_phrases(result, image, phrase, boxes, method, flags) -> None:
    row = result[0][f"{image}.jpg", phrase]
    assert (row["boxes"], row["method"], row["flags"]) == (boxes, method, flags)
    assert row["score"] == (0.0 if "no_evidence" in flags else 1.0)


def test_a_union_of_two_boxes(result) -> None:
    assert result[0]["1000092795.jpg", "Two young guys"]["region"] == [0, 4, 50, 60]


def test_rejected_and_left_out(result) -> None:
    rows, rejected = result
    assert [(line["reason"], line["image"], line["question"]) for line in rejected] == [
        ("not_visible", "1000092795.jpg", "a break"),
        ("xml", "81641.jpg", ""),  # an entity of XML, of which bombs are made, is not expanded
    ]
    assert len(rows) == 10  # "Two  young guys" is said twice, the image out of the split not at all


def test_without_a_split_all_sentences_are_read(tmp_path: Path) -> None:
    reader = make(tmp_path)
    assert isinstance(reader, Flickr30k)
    everything = Flickr30k(reader.annotations, reader.sentences).records()
    assert list(everything) == ["1000092795", "36979", "81641", "99999"]
    assert everything.position() == everything.size == 4


@pytest.mark.parametrize(
    ("kind", "content", "reason"),
    [
        ("Annotations", "", "xml"),
        ("Annotations", "<annotation><size>", "xml"),
        ("Annotations", "<annotation/>", "schema"),
        ("Annotations", '<?xml version="1.0" encoding="none"?><annotation/>', "xml"),
        ("Sentences", b"\xff\xfe[/EN#1/people A man]", "sentences"),
    ],
)
def test_damaged_files_are_rejected_by_name(kind: str, content: str | bytes, reason: str, tmp_path: Path) -> None:
    def damaged(folder: Path) -> Flickr30k:
        reader = make(folder)
        path = folder / kind / ("36979.txt" if kind == "Sentences" else "36979.xml")
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return reader  # type: ignore[return-value]

    rows, rejected = rows_of(damaged, tmp_path)
    assert all(image == "1000092795.jpg" for image, _ in rows)
    assert reason in [line["reason"] for line in rejected if "36979" in line["message"]]


@pytest.mark.parametrize("name", ["../x", "", "a/b", "\0", "\ud800", 7, None, ["1"]])
def test_names_that_are_no_ids_are_refused(name: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="record: "):
        make(tmp_path).parse(name)
