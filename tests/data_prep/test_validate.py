"""The pre-flight check: a clean set passes, and each defect is counted by its own check and by no other."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from PIL import Image

from data_prep.checking.findings import CHECKS
from data_prep.schema.sample import RegionAnnotation, sample_id, write_regions
from data_prep.validate import main

SIZE = (80, 40)


class DataSet:
    """Four records, each with its own image, and their sidecar; tests spoil it before `write`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.images = folder, folder / "images"
        self.images.mkdir(parents=True)
        self.records, self.rows = [], []
        self.source = {"annotations": str(folder / "data.json"), "image_root": str(self.images)}
        for number in range(4):
            image = f"pic{number}.png"
            Image.new("RGB", SIZE, (60 * number, 0, 0)).save(self.images / image)
            self.add(image, f"What is {number}?", str(number))

    def add(self, image: str, question: str, answer: str) -> None:
        self.records.append({"id": f"r{len(self.records)}", "image": image, "conversations": said(question, answer)})
        key = sample_id("data", image, 0, question)
        box = (8.0, 4.0, 40.0, 20.5)
        self.rows.append(RegionAnnotation(key, "data", image, 0, question, *SIZE, [box], box, "human"))

    def write(self, arguments: dict | None = None) -> dict:
        """The entry of a configuration."""
        Path(self.source["annotations"]).write_text(json.dumps(self.records))
        if self.rows:
            write_regions(self.folder / "regions", self.rows, {"arguments": arguments or {}})
            self.source["regions"] = str(self.folder / "regions")
        return self.source


def said(*texts: str) -> list[dict]:
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


@pytest.fixture
def data(tmp_path: Path) -> DataSet:
    return DataSet(tmp_path / "train")


def run(folder: Path, *train: dict, eval_data: tuple[dict, ...] = (), words: tuple[str, ...] = ()) -> tuple[int, dict]:
    """Exit status and the JSON report, by a configuration that holds a training's keys too."""
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump({"train_data": list(train), "eval_data": list(eval_data), "learning_rate": 1.0}))
    with pytest.raises(SystemExit) as caught:
        main([str(config), "workers=1", f"report={folder / 'report.json'}", *words])
    return caught.value.code, json.loads((folder / "report.json").read_text())


def found(report: dict, source: int = -1) -> dict[str, int]:
    return {name: check["count"] for name, check in report["sources"][source]["checks"].items() if check["count"]}


def first(report: dict, check: str) -> str:
    return report["sources"][-1]["checks"][check]["first"]


def test_a_clean_set_passes(data: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data.records.append({"conversations": said("Hi", "Hello")})
    data.records.append({"images": ["pic0.png", "pic1.png"], "conversations": said("Same?", "No"), "objects": BOX})
    status, report = run(tmp_path, data.write())
    assert (status, report["train"], found(report)) == (0, True, {})
    counts = {"rows": 4, "records": 6, "questions": 6, "images": 4, "text-only records": 1, "multi-image records": 1}
    assert report["sources"][0]["counts"] == counts
    assert capsys.readouterr().out.endswith("train: yes\n")


BOX = {"bbox": [[1, 2, 30, 40]]}


# ---- each defect, planted into a clean set: (what it does to the set, the check, words of the first example)


def no_answer(data: DataSet) -> None:
    data.records[1]["conversations"][1]["value"] = " "
    del data.rows[1]


def two_questions(data: DataSet) -> None:
    data.records[1]["conversations"] = said("What is 1?", "a", "What else?")
    del data.rows[1]


def no_list(data: DataSet) -> None:
    data.records[1]["conversations"] = 5
    del data.rows[1]


def no_mapping(data: DataSet) -> None:
    data.records[1] = ["pic1.png"]
    del data.rows[1]


def outside_record_box(data: DataSet) -> None:
    data.records[1]["objects"] = {"bbox": [[100, 0, 120, 10]]}


def normalised_record_box(data: DataSet) -> None:
    data.records[1]["objects"] = {"bbox": [[0, 0, 0.5, 0.5]], "bbox_type": "norm1"}


def objects_list(data: DataSet) -> None:
    data.records[1]["objects"] = [[1, 2, 3, 4]]


def image_called(name: str):
    def plant(data: DataSet) -> None:
        del data.records[1], data.rows[1]
        data.add(name, "What is it?", "x")

    return plant


def no_root(data: DataSet) -> None:
    del data.source["image_root"]


def text_for_image(data: DataSet) -> None:
    (data.images / "pic1.png").write_text("not an image")


def large_image(data: DataSet) -> None:
    Image.new("L", (1000, 101)).save(data.images / "pic1.png")


def other_size(data: DataSet) -> None:
    Image.new("L", (80, 41)).save(data.images / "pic1.png")


def row(**changes):
    def plant(data: DataSet) -> None:
        data.rows[1] = replace(data.rows[1], **changes)

    return plant


def one_box(*box: float):
    """A box with the region that belongs to it, clipped."""
    x1, y1, x2, y2 = box
    return row(boxes=[box], region=(max(x1, 0.0), max(y1, 0.0), min(x2, 80.0), min(y2, 40.0)))


ERRORS = [
    (no_answer, "empty_answer", 1, "record 1 (id r1): question 0 has no answer"),
    (two_questions, "record", 1, "record 1 (id r1): expected questions, each with its answer"),
    (no_list, "record", 1, "record 1 (id r1): expected a list of questions and answers, got 5"),
    (no_mapping, "record", 1, "record 1: expected a mapping"),
    (outside_record_box, "record_boxes", 1, "record 1 (id r1): objects.bbox: box [100, 0, 120, 10] lies outside"),
    (normalised_record_box, "record_boxes", 1, "record 1 (id r1): objects.bbox_type must be real"),
    (objects_list, "record_boxes", 1, "record 1 (id r1): objects: expected"),
    (image_called("http://example.org/a.png"), "url", 1, "record 3 (id r3): image 'http://example.org/a.png' is a URL"),
    (image_called("../images.png"), "outside_root", 1, "record 3 (id r3): image '../images.png' lies outside"),
    (image_called("/etc/passwd"), "outside_root", 1, "record 3 (id r3): image '/etc/passwd' lies outside"),
    (image_called("missing.png"), "no_image", 1, "record 3 (id r3): no image file"),
    (no_root, "no_root", 4, "record 0 (id r0): has an image"),
    (text_for_image, "bad_image", 1, "record 1 (id r1): "),
    (other_size, "size_mismatch", 1, "record 1: the image is 80x41, the sidecar states 80x40"),
    (one_box(-5, 0, 10, 10), "box_outside", 1, "image pic1.png"),
    (one_box(70, 30, 80.5, 40), "box_outside", 1, "image pic1.png"),
    (one_box(10, 10, 10.5, 20), "box_degenerate", 1, "image pic1.png"),
    (one_box(20, 10, 10, 20), "box_degenerate", 1, "image pic1.png"),
    (row(region=(8, 4, 40, 21)), "region_mismatch", 1, "image pic1.png"),
    (row(region=None), "region_mismatch", 1, "image pic1.png"),
    (row(boxes=[]), "region_mismatch", 1, "image pic1.png"),
    (row(boxes=[(0, 0, 4, 4), (8, 4, 40, 20.5)]), "region_mismatch", 1, "image pic1.png"),
]


@pytest.mark.parametrize(("plant", "check", "count", "words"), ERRORS)
def test_each_error_is_counted_by_its_check_alone(data: DataSet, tmp_path: Path, plant, check, count, words) -> None:
    plant(data)
    status, report = run(tmp_path, data.write())
    assert found(report) == {check: count}
    assert words in first(report, check)
    assert (status, report["train"], report["sources"][0]["fatal"]) == (1, False, [check])


def test_a_box_that_is_not_finite_is_outside(data: DataSet, tmp_path: Path) -> None:
    row(boxes=[(1.0, 1.0, float("nan"), 9.0)])(data)
    assert found(run(tmp_path, data.write())[1]) == {"box_outside": 1, "region_mismatch": 1}


def test_large_images(data: DataSet, tmp_path: Path) -> None:
    large_image(data)
    status, report = run(tmp_path, data.write(), words=("max_image_pixels=100000",))
    assert (status, found(report)) == (1, {"too_large": 1})


def test_an_unknown_method(data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row(method="guess")(data)
    monkeypatch.setattr("data_prep.schema.sample.REGION_METHODS", ("human", "guess"))  # the writer refuses it otherwise
    status, report = run(tmp_path, data.write())
    assert (status, found(report)) == (1, {"unknown_method": 1})


def test_a_truncated_file_is_found_by_decoding(data: DataSet, tmp_path: Path) -> None:
    path = data.images / "pic1.png"
    Image.effect_noise(SIZE, 90).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    assert run(tmp_path, data.write())[0] == 0
    status, report = run(tmp_path, data.write(), words=("decode=true",))
    assert (status, found(report)) == (1, {"bad_image": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"image": "pic0.png", "conv', "data.json: not JSON"),
        ("[]", "data.json: no samples"),
        ('{"a": 1}', "expected a list"),
    ],
)
def test_annotations_that_cannot_be_read(data: DataSet, tmp_path: Path, text: str, message: str) -> None:
    source = data.write() | {"regions": None}
    Path(source["annotations"]).write_text(text)
    status, report = run(tmp_path, source)
    assert (status, found(report)) == (1, {"annotations": 1})
    assert message in first(report, "annotations")


def test_jsonl_goes_on_after_a_bad_line(data: DataSet, tmp_path: Path) -> None:
    path = data.folder / "data.jsonl"
    path.write_text("\n".join([json.dumps(data.records[0]), "{", json.dumps(data.records[2])]))
    status, report = run(tmp_path, data.write() | {"annotations": str(path)})
    assert (status, found(report)) == (1, {"record": 1, "unused_row": 2})
    assert "data.jsonl: line 2: not JSON" in first(report, "record")


@pytest.mark.parametrize("damage", ["manifest.json", "part-00000.parquet"])
def test_a_damaged_sidecar(data: DataSet, tmp_path: Path, damage: str) -> None:
    source = data.write()
    (Path(source["regions"]) / damage).write_text("text")
    status, report = run(tmp_path, source)
    assert (status, found(report)) == (1, {"sidecar": 1, "no_region": 4})
    assert damage in first(report, "sidecar")


def test_a_sidecar_of_other_questions(data: DataSet, tmp_path: Path) -> None:
    data.rows = [replace(item, sample_id=f"{number:040x}") for number, item in enumerate(data.rows)]
    status, report = run(tmp_path, data.write())
    assert (status, found(report)) == (1, {"foreign_sidecar": 1, "no_region": 4, "unused_row": 4})
    assert report["sources"][0]["fatal"] == ["foreign_sidecar"]


@pytest.mark.parametrize(("text", "frame"), [("[0.2, 0.3, 0.4, 0.7]", "padded_square"), ("[0, 0, 0.4, 0.9]", "unit")])
def test_the_frame_of_boxes_in_text(data: DataSet, tmp_path: Path, text: str, frame: str) -> None:
    """80x40 fills y of [0.25, 0.75] of the padded square: 0 and 0.9 cannot be on it."""
    for record in data.records:
        record["conversations"][1]["value"] = f"{text} {text}"
    status, report = run(tmp_path, data.write({"frame": "padded_square"}))
    outside = 8 if frame == "unit" else 0
    boxes = {"boxes": 8, "outside_padded_square": outside, "frame": frame}
    assert report["sources"][0]["text_boxes"] == boxes
    assert (status, found(report)) == ((1, {"frame_mismatch": 1}) if outside else (0, {}))
    assert run(tmp_path, data.write({"frame": "unit"}))[0] == 0


# ---- leakage


def test_images_of_evaluation_lists_are_leaks(data: DataSet, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("COCO_val2014_pic1.jpg\n\nother\n")
    status, report = run(tmp_path, data.write(), words=(f"evaluation_images=[{tmp_path / 'names.txt'}]",))
    assert (status, found(report)) == (1, {"evaluation_image": 1})
    assert "record 1 (id r1): pic1.png" in first(report, "evaluation_image")


def test_images_of_eval_data_are_leaks_where_they_are_the_same(data: DataSet, tmp_path: Path) -> None:
    """Both sets number their images; in the held-out set pic2.png alone is the training set's own."""
    held_out = DataSet(tmp_path / "test")
    for number in (0, 1, 3):
        Image.new("RGB", SIZE, (0, 0, 200 + number)).save(held_out.images / f"pic{number}.png")
    status, report = run(tmp_path, data.write(), eval_data=(held_out.write(),))
    assert (status, found(report, 0), found(report)) == (1, {}, {"evaluation_image": 1, "evaluation_name": 3})
    assert "pic2.png" in first(report, "evaluation_image")


# ---- warnings


def test_warnings_do_not_forbid_training(data: DataSet, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SIZE).save(data.images / "pic0.png", "GIF")
    Image.new("CMYK", SIZE).save(data.images / "turned.jpg", exif=exif)
    data.records.append({"image": "turned.jpg", "conversations": said("Where?", "Here", "Where?", "There")})
    data.records.append(data.records[1])
    status, report = run(tmp_path, data.write())
    assert status == 0
    assert found(report) == {
        "format_mismatch": 1, "exif_rotated": 1, "cmyk": 1,
        "duplicate_sample": 1, "answer_conflict": 1, "no_region": 2,
    }  # fmt: skip
    assert {CHECKS[name].severity for name in found(report)} == {"warning"}


def test_what_annotation_rejected_is_passed_over(data: DataSet, tmp_path: Path) -> None:
    """Only where the sidecar was made of this very file, whose records its list counts."""
    data.records[1]["image"] = "gone.png"
    data.rows.pop(1)
    source = data.write()
    line = {"record": 1, "reason": "no_image", "message": "", "image": "gone.png", "question": ""}
    (data.folder / "regions" / "rejected.jsonl").write_text(json.dumps(line) + "\n")
    status, report = run(tmp_path, source)
    assert (status, found(report)) == (1, {"no_image": 1, "no_region": 1})
    manifest = json.loads((data.folder / "regions" / "manifest.json").read_text()) | {"inputs": {"data.json": ""}}
    (data.folder / "regions" / "manifest.json").write_text(json.dumps(manifest))
    status, report = run(tmp_path, source)
    assert (status, found(report)) == (0, {"left_out": 1})
    (data.folder / "regions" / "rejected.jsonl").write_text("{")
    status, report = run(tmp_path, source)
    assert "rejected.jsonl: line 1: not JSON" in first(report, "annotations")


def test_own_boxes_need_no_sidecar(data: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.rows = []
    data.records[0]["objects"] = BOX
    assert found(run(tmp_path, data.write())[1]) == {"no_region": 3}
    capsys.readouterr()
    source = {key: value for key, value in data.write().items() if key != "regions"}
    assert found(run(tmp_path, source)[1]) == {"no_region": 3}
    assert "neither boxes in the record nor a row in a sidecar: trained without a region" in capsys.readouterr().out


# ---- the program


def test_a_share_of_bad_records_may_be_allowed(data: DataSet, tmp_path: Path) -> None:
    image_called("missing.png")(data)
    assert run(tmp_path, data.write(), words=("max_bad_fraction=0.25",))[0] == 0  # one of four images
    assert run(tmp_path, data.write(), words=("max_bad_fraction=0.24",))[0] == 1


def test_workers_find_the_same(data: DataSet, tmp_path: Path) -> None:
    text_for_image(data)
    image_called("missing.png")(data)
    data.records[0]["objects"] = {"bbox": [[100, 0, 120, 10]]}
    one, two = (run(tmp_path, data.write(), words=(f"workers={n}",)) for n in (1, 2))
    assert one[1]["sources"] == two[1]["sources"]
    assert found(one[1]) == {"no_image": 1, "record_boxes": 1}  # the spoilt image left the set


def test_names_that_cannot_be_printed(data: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = data.folder / "data.jsonl"
    path.write_text(json.dumps(data.records[0] | {"image": "\ud800\n.png"}))
    status, report = run(tmp_path, {"annotations": str(path), "image_root": str(data.images)})
    assert (status, found(report)) == (1, {"no_image": 1, "no_region": 1})
    assert "\\ud800 .png" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["lerning_rate=1"], ["workers=0"], ["max_bad_fraction=2"], ["evaluation_images=[x]"]]
)
def test_wrong_calls(data: DataSet, tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str]) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"train_data": [data.write()]}))
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / "config.yaml"), *words])
    assert caught.value.code == 2
    assert words[0].partition("=")[0] in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "names no data" in capsys.readouterr().err


def test_every_error_check_is_planted_here() -> None:
    planted = {check for _, check, _, _ in ERRORS}
    elsewhere = {"annotations", "sidecar", "foreign_sidecar", "frame_mismatch", "unknown_method", "too_large"}
    errors = {name for name, check in CHECKS.items() if check.severity == "error"}
    assert errors == planted | elsewhere | {"evaluation_image"}
