"""The page about regions: its numbers against a slow count, and what must never be on it."""

import base64
import io
import json
import random
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

import pytest
import yaml
from PIL import Image

from data_prep.report import main
from data_prep.schema.sample import RegionAnnotation, sample_id, write_regions

SCRIPT = "<script>alert('&')</script>"


class Page(HTMLParser):
    """What a browser would see: (tag, attributes) of every element, and all text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.lines: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self.lines).split())

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.lines.append(data)

    def all(self, tag: str, kind: str | None = None) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag and (kind is None or found.get("class") == kind)]


def random_rows(count: int, source: str = "viscot_gqa") -> list[RegionAnnotation]:
    rng = random.Random(3)
    rows = []
    for number in range(count):
        width, height = rng.choice([(120, 80), (60, 90)])
        x, y = rng.uniform(0, width - 2), rng.uniform(0, height - 2)
        box = (x, y, rng.uniform(x + 1, width), rng.uniform(y + 1, height))
        boxes = [box] if number % 3 else []
        method = ("global", "human", "ocr_match")[number % 3]
        flags = ["oob_clipped"] if number % 5 == 0 else []
        image, question = f"{width}.png", f"Question {number}?"
        key = sample_id(source, image, 0, question)
        region = box if boxes else None
        rows.append(
            RegionAnnotation(key, source, image, 0, question, width, height, boxes, region, method, flags=flags)
        )
    return rows


def make(folder: Path, rows: list[RegionAnnotation]) -> Path:
    """A configuration of one source with the answers A0, A1, ..."""
    images = folder / "images"
    images.mkdir()
    Image.new("RGB", (120, 80), "white").save(images / "120.png")
    Image.new("RGB", (60, 90), "white").save(images / "60.png")
    said = [[("human", row.question), ("gpt", f"A{number}")] for number, row in enumerate(rows)]
    records = [
        {"image": row.image, "conversations": [{"from": who, "value": text} for who, text in turns]}
        for row, turns in zip(rows, said, strict=True)
    ]
    (folder / "data.json").write_text(json.dumps(records))
    write_regions(folder / "regions", rows, {})
    source = {
        "annotations": str(folder / "data.json"),
        "image_root": str(images),
        "regions": str(folder / "regions"),
    }
    (folder / "config.yaml").write_text(yaml.safe_dump({"train_data": [source], "learning_rate": 1.0}))
    return folder / "config.yaml"


def report(folder: Path, rows: list[RegionAnnotation], *words: str) -> Page:
    config = make(folder, rows)
    main([str(config), f"out={folder / 'page.html'}", *words])
    return Page(folder / "page.html")


def test_numbers_agree_with_a_slow_count(tmp_path: Path) -> None:
    rows = random_rows(200)
    config = make(tmp_path, rows)
    rejected = [{"reason": "no_image"}, {"reason": "schema"}, {"reason": "no_image"}]
    (tmp_path / "regions" / "rejected.jsonl").write_text("\n".join(map(json.dumps, rejected)))
    main([str(config), f"out={tmp_path / 'page.html'}"])
    page = Page(tmp_path / "page.html")

    placed = [row for row in rows if row.region]
    areas = [
        100 * (row.region[2] - row.region[0]) * (row.region[3] - row.region[1]) / row.width / row.height
        for row in placed
    ]
    assert f"200 questions, {len(placed)} of them with a region" in page.text
    for method in ("global", "human", "ocr_match"):
        count = sum(row.method == method for row in rows)
        assert f"{method} {count} {100 * count / 200:.1f} %" in page.text
    assert "and was clipped 40 20.0 %" in page.text  # oob_clipped, with its meaning
    assert "no_image 2" in page.text and "schema 1" in page.text
    assert f"here {mean(areas):.1f} % {median(areas):.1f} %" in page.text
    assert "Visual-CoT's gqa 16.4 % 6.5 %" in page.text
    assert f"{100 * sum(area > 50 for area in areas) / len(areas):.1f} % of the regions are above half" in page.text
    edges = [0, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
    for low, high in pairwise(edges):
        count = sum(low <= area < high for area in areas)
        assert f" {low:g}–{high:g} % {count} " in page.text
    cover = [100 * sum(touches(row, x, y) for row in placed) / len(placed) for y in range(8) for x in range(8)]
    assert " ".join(f"{share:.0f}" for share in cover) in page.text


def touches(row: RegionAnnotation, x: int, y: int) -> bool:
    """Whether the region and the cell (x, y) of an 8x8 grid over the image overlap."""
    x1, y1, x2, y2 = row.region
    w, h = row.width / 8, row.height / 8
    return x1 < (x + 1) * w and x2 > x * w and y1 < (y + 1) * h and y2 > y * h


def test_samples_are_spread_over_methods_and_fixed_by_the_seed(tmp_path: Path) -> None:
    rows = random_rows(60)
    page = report(tmp_path, rows, "samples=6")
    shown = re.findall(r"Question (\d+)\? A(\d+) ", page.text)
    assert len(shown) == 6 and all(question == answer for question, answer in shown)
    assert sorted(int(number) % 3 for number, _ in shown) == [0, 0, 1, 1, 2, 2]
    for seed, same in (("0", True), ("1", False)):
        main([str(tmp_path / "config.yaml"), f"out={tmp_path / 'again.html'}", "samples=6", f"seed={seed}"])
        assert ((tmp_path / "again.html").read_bytes() == (tmp_path / "page.html").read_bytes()) is same


def test_the_region_and_its_cells_are_drawn(tmp_path: Path) -> None:
    """(16, 11, 30, 20) of 120x80: cells are 15x10, so columns 1 (15-30) and rows 1 (10-20): one cell."""
    key = sample_id("s", "120.png", 0, "Where?")
    box = (16.0, 11.0, 30.0, 20.0)
    page = report(tmp_path, [RegionAnnotation(key, "s", "120.png", 0, "Where?", 120, 80, [box], box, "human")])
    (cell,), (region,) = page.all("rect", "cell"), page.all("rect", "region")
    assert [float(cell[name]) for name in ("x", "y", "width", "height")] == [15, 10, 15, 10]
    assert [float(region[name]) for name in ("x", "y", "width", "height")] == [16, 11, 14, 9]
    assert page.all("svg")[0]["viewbox"] == "0 0 120 80"
    assert "Visual-CoT" not in page.text


def test_the_page_stands_alone(tmp_path: Path) -> None:
    page = report(tmp_path, random_rows(30))
    links = [value for _, found in page.elements for name, value in found.items() if name in ("src", "href")]
    assert len(page.all("img")) == 12 == len([link for link in links if link.startswith("data:image/jpeg;base64,")])
    assert {link[:1] for link in links} == {"d", "#"}
    assert not re.search(r"https?://|url\(|@import", (tmp_path / "page.html").read_text())
    assert all(image["alt"] for image in page.all("img"))
    assert not page.all("script") and not page.all("link")


def test_texts_are_escaped(tmp_path: Path) -> None:
    (row,) = random_rows(1)
    key = sample_id(SCRIPT, row.image, 0, SCRIPT)
    hostile = RegionAnnotation(key, SCRIPT, row.image, 0, SCRIPT, row.width, row.height, [], None, "global")
    page = report(tmp_path, [hostile])
    assert not page.all("script")
    assert SCRIPT in page.text
    assert "&lt;script&gt;" in (tmp_path / "page.html").read_text()


def test_missing_and_damaged_images_are_named(tmp_path: Path) -> None:
    config = make(tmp_path, random_rows(30))
    (tmp_path / "images" / "120.png").unlink()
    (tmp_path / "images" / "60.png").write_bytes((tmp_path / "images" / "60.png").read_bytes()[:60])
    main([str(config), f"out={tmp_path / 'page.html'}"])
    page = Page(tmp_path / "page.html")
    assert not page.all("img")
    assert f"No picture: no image file {tmp_path / 'images' / '120.png'}" in page.text
    assert f"No picture: {tmp_path / 'images' / '60.png'}: " in page.text


def test_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    config = make(tmp_path, random_rows(1))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("120.png", "60.png"):
        Image.new("RGB", (60, 90), "white").save(tmp_path / "images" / name, "JPEG", exif=exif)
    main([str(config), f"out={tmp_path / 'page.html'}"])
    (image,) = Page(tmp_path / "page.html").all("img")
    with Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2]))) as shown:
        assert shown.size == (60, 90)
        assert not shown.getexif()


def test_a_source_without_regions_and_a_question_without_answer(tmp_path: Path) -> None:
    config = make(tmp_path, random_rows(3))
    (tmp_path / "data.json").write_text("[]")
    values = yaml.safe_load(config.read_text())
    values["eval_data"] = [{"annotations": str(tmp_path / "data.json")}]
    config.write_text(yaml.safe_dump(values))
    main([str(config), f"out={tmp_path / 'page.html'}"])
    text = Page(tmp_path / "page.html").text
    assert text.count("no such question in the annotations") == 3
    assert "No region sidecar" in text


def test_answers_behind_a_damaged_line_are_shown(tmp_path: Path) -> None:
    config = make(tmp_path, random_rows(6))
    first, *others = json.loads((tmp_path / "data.json").read_text())
    lines = [json.dumps(first), "{damaged", "[1, 2]", *map(json.dumps, others)]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    config.write_text(config.read_text().replace("data.json", "data.jsonl"))
    main([str(config), f"out={tmp_path / 'page.html'}"])
    shown = re.findall(r"Question (\d+)\? A(\d+) ", Page(tmp_path / "page.html").text)
    assert sorted(shown) == [(str(number), str(number)) for number in range(6)]


def test_a_broken_sidecar_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = make(tmp_path, random_rows(3))
    (tmp_path / "regions" / "part-00000.parquet").write_text("text")
    with pytest.raises(SystemExit) as caught:
        main([str(config), f"out={tmp_path / 'page.html'}"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "part-00000.parquet: not a parquet file" in error and error.count("\n") == 1
    assert not (tmp_path / "page.html").exists()
