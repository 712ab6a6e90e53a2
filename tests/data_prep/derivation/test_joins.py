"""Questions of a mix found again in the sidecars of their sources."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.common.errors import ConfigError, RecordError
from data_prep.derivation.joins import Joins, image_key, question_key
from data_prep.schema.sample import RegionAnnotation, sample_id, write_regions

names = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1)


def annotation(image: str, question: str, x: float = 1.0, source: str = "native") -> RegionAnnotation:
    key, box = sample_id(source, image, 0, question), (x, 2.0, 30.0, 40.0)
    return RegionAnnotation(key, source, image, 0, question, 50, 60, [box], box, "human", 1.0, ["oob_clipped"])


def sidecar(folder: Path, *rows: RegionAnnotation) -> Path:
    write_regions(folder, rows, {}, rows_per_part=1)
    return folder


def built(folder: Path, *specs: str) -> Joins:
    joins = Joins(specs)
    joins.build(folder / "tables")
    return joins


@pytest.mark.parametrize(
    ("image", "key"),
    [
        ("coco/train2017/000000000009.jpg", "000000000009"),
        ("COCO_train2014_000000000009.jpg", "000000000009"),
        ("val2014/COCO_val2014_000000000009.JPEG", "000000000009"),
        ("000000000009", "000000000009"),  # as lists of evaluation images name them
        ("gqa/images/2370799.jpg", "2370799"),
        ("charts/a.1.png", "a.1"),
        ("charts/a.2.png", "a.2"),
        ("v1.2", "v1.2"),
        ("a/COCO.jpg", "COCO"),
    ],
)
def test_image_key(image, key) -> None:
    assert image_key(image) == key


@given(names, st.sampled_from(["", "a/", "../b/c/"]), st.sampled_from(["", ".jpg", ".PNG"]))
def test_images_are_one_by_name(name, folder, extension) -> None:
    known = image_key(f"x{name}")
    assert image_key(f"{folder}x{name}") == known
    assert image_key(f"{folder}x{name}z{extension}") == f"x{name}z"


@pytest.mark.parametrize(
    "asked",
    ["What is red?", "what is  RED?", "What is red?\nAnswer the question using a single word.", " What is red? "],
)
def test_question_key(asked) -> None:
    assert question_key(asked) == "what is red?"


def test_a_question_is_found_by_image_and_text(tmp_path: Path) -> None:
    rows = [annotation("COCO_train2014_000000000009.jpg", "What is red?"), annotation("b/1.jpg", "What is red?", 5.0)]
    joins = built(tmp_path, f"coco/={sidecar(tmp_path / 's', *rows)}")
    found = joins.find("coco/train2017/000000000009.jpg", "What is red?\nAnswer with a single word.")
    assert found is not None
    assert (found.sample_id, tuple(found.boxes[0]), found.flags) == (
        rows[0].sample_id,
        rows[0].boxes[0],
        ["oob_clipped"],
    )
    assert tuple(joins.find("coco/1.png", "What is red?").region) == (5.0, 2.0, 30.0, 40.0)  # type: ignore[union-attr, arg-type]
    assert joins.find("coco/train2017/000000000009.jpg", "What is blue?") is None
    assert joins.find("coco/train2017/000000000010.jpg", "What is red?") is None
    assert joins.find("gqa/1.jpg", "What is red?") is None  # another prefix


def test_the_longest_prefix_decides(tmp_path: Path) -> None:
    general = sidecar(tmp_path / "a", annotation("1.jpg", "What?", 1.0, "a"))
    special = sidecar(tmp_path / "b", annotation("1.jpg", "What?", 2.0, "b"))
    joins = built(tmp_path, f"vg/={general}", f"vg/VG_100K_2/={special}")
    sources = [joins.find(image, "What?").source for image in ("vg/VG_100K/1.jpg", "vg/VG_100K_2/1.jpg")]  # type: ignore[union-attr]
    assert sources == ["a", "b"]


def test_joins_go_to_other_processes_and_name_their_manifests(tmp_path: Path) -> None:
    joins = built(tmp_path, f"a/={sidecar(tmp_path / 's', annotation('1.jpg', 'What?'))}")
    assert joins.find("a/1.jpg", "What?") is not None
    assert pickle.loads(pickle.dumps(joins)).find("a/1.jpg", "What?") == joins.find("a/1.jpg", "What?")
    assert joins.files() == [tmp_path / "s" / "manifest.json"]
    assert Joins([]).find("a/1.jpg", "What?") is None


def test_what_is_no_join_is_refused(tmp_path: Path) -> None:
    good = sidecar(tmp_path / "s", annotation("1.jpg", "What?"))
    for specs, message in [
        (["a/"], "expected PREFIX=SIDECAR"),
        ([f"={good}"], "expected PREFIX=SIDECAR"),
        ([f"a/={good}", f"a/={good}"], "each prefix once"),
        ([f"a/={tmp_path}"], "is no region sidecar"),
    ]:
        with pytest.raises(ConfigError, match=message):
            Joins(specs)


def test_a_damaged_row_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joins = built(tmp_path, f"a/={sidecar(tmp_path / 's', annotation('1.jpg', 'What?'))}")
    for damaged in ([], {}, {**joins.indexes["a/"].get("1\twhat?"), "boxes": [["left", 0, 1, 1]]}):
        monkeypatch.setattr(joins.indexes["a/"], "get", lambda _, damaged=damaged: damaged)
        with pytest.raises(RecordError, match="damaged row"):
            joins.find("a/1.jpg", "What?")
        monkeypatch.undo()
