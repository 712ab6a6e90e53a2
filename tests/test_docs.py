"""Links, commands and paths in the pages lead somewhere; lines stay short."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *(path for path in (ROOT / "docs").rglob("*.md") if "examples" not in path.parts),  # those are generated
        *(ROOT / "configs").rglob("*.md"),
    ]
)
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
OURS = ("crop_model", "data_prep", "train", "tests")
PATH = re.compile(r"(?<![\w./-])(?:configs|launch|train|crop_model|data_prep|tests|docs)/[\w./-]*\w\.\w+")
MAX_LINE = 140


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", [*PAGES, *CONFIGS], ids=name)
def test_modules_and_files_that_are_named_exist(page: Path) -> None:
    text = page.read_text()
    modules = set(re.findall(r"(?:python3? -m|--module|MODULE=) ?([\w.]+)", text))
    for module in sorted(module for module in modules if module.split(".")[0] in OURS):
        assert find_spec(module), module
    if page.name == "CHANGELOG.md":  # which names what was
        return
    shown = set(re.findall(r"^```\w+\n# (\S+)", text, re.MULTILINE))  # files that the page itself shows
    assert not [path for path in PATH.findall(text) if path not in shown and not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_lines_are_short(page: Path) -> None:
    lines = enumerate(page.read_text().splitlines(), 1)
    assert not [number for number, line in lines if len(line) > MAX_LINE and not line.startswith("|")]
