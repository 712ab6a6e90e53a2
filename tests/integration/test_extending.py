"""docs/extending.md, followed in a copy of the checkout: what each of its examples leaves."""

import json
import shutil
from pathlib import Path

import pytest

from data_prep.schema.sample import read_regions
from tests.page import ROOT, follow

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    for package in ("crop_model", "data_prep", "train"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("configs", "docs"):
        (folder / name).symlink_to(ROOT / name)
    follow("extending.md", folder)
    return folder


def test_the_source_is_annotated(checkout: Path) -> None:
    table = read_regions(checkout / "mine" / "regions")
    found = {row.question: (row.method, row.region) for row in table.values()}
    assert found == {
        "Which digit is in the red frame?": ("human", (40, 30, 120, 90)),
        "Is any digit larger?": ("human", (200, 40, 320, 100)),
        "How many digits are there?": ("global", None),
    }
    assert list((checkout / "mine" / "regions" / "samples").glob("*.parquet"))


def test_the_benchmark_is_asked_and_scored(checkout: Path) -> None:
    (row,) = json.loads((checkout / "mine" / "evaluation" / "evaluation.json").read_text())["rows"]
    assert row["benchmarks"]["signs"]["n"] == 2
    assert 0 <= row["benchmarks"]["signs"]["score"] <= 1
