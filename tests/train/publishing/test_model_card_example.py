"""The committed card of the demo's export: what the code writes, and what the Hub takes."""

import re
import runpy
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard, metadata_load, parse_eval_result_entries
from PIL import Image

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "docs" / "examples" / "model_card"


def test_the_example_is_what_the_code_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shutil.copy(EXAMPLE / "region.png", tmp_path)
    runpy.run_path(str(ROOT / "tests" / "benchmarks" / "write_model_card.py"))["write"](tmp_path)
    written = {
        str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*.[my]*") if path.is_file()
    }
    assert len(written) > 1
    for name, text in written.items():
        assert (EXAMPLE / name).read_text() == text, "tests/benchmarks/write_model_card.py writes it"


def test_the_hub_takes_its_metadata() -> None:
    """As the Hub reads it: YAML between two lines of dashes; known tasks, libraries and licences; no key left empty."""
    data = metadata_load(EXAMPLE / "README.md")
    assert data is not None
    assert data["library_name"] == "transformers" and data["pipeline_tag"] == "image-text-to-text"
    assert re.fullmatch(r"[a-z0-9.-]+", data["license"])
    assert all(value not in (None, "", []) for value in data.values())
    assert all(isinstance(tag, str) and re.fullmatch(r"[\w-]+", tag) for tag in data["tags"])
    card = ModelCard.load(EXAMPLE / "README.md", ignore_metadata_errors=False)
    assert card.data.to_dict() == data  # nothing that huggingface_hub does not keep


def test_the_hub_takes_its_results() -> None:
    files = sorted((EXAMPLE / ".eval_results").glob("*.yaml"))
    assert len(files) == 4  # annotated, found, random and no regions
    for path in files:
        (entry,) = parse_eval_result_entries(yaml.safe_load(path.read_text()))
        assert 0 <= entry.value <= 1 and entry.dataset_id == "crop-demo-digits"


def test_everything_that_a_reader_asks_for_is_there() -> None:
    text = (EXAMPLE / "README.md").read_text()
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert headings == ["Use", "Regions and tokens", "Training", "Results", "Limitations", "Citation"]
    for link in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        with Image.open(EXAMPLE / link) as picture:
            assert picture.width > 600
    assert not re.search(r"(^|[\s`\"(])/(?!/)\w+/\w", text)  # no place of a machine
    assert "\n\n\n" not in text and "{" not in text.split("## Training")[0].replace('{"', "").replace("[{", "")
