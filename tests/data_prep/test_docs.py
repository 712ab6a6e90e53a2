"""docs/data.md names every source, flag and reason that the code knows, and its configurations parse."""

import re
from pathlib import Path

import pytest

from data_prep.annotate import AnnotateArguments
from data_prep.common.command_line import parse_config
from data_prep.common.errors import ConfigError
from data_prep.derivation.derive import FLAGS
from data_prep.sources import SOURCES

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "data.md").read_text()


def test_sources_flags_and_reasons_are_documented() -> None:
    code = "".join(path.read_text() for path in sorted((ROOT / "data_prep").rglob("*.py")))
    reasons = set(re.findall(r'RecordError\(\s*"(\w+)"', code))
    assert len(reasons) > 20
    missing = [name for name in (*SOURCES, *FLAGS, *reasons) if f"`{name}`" not in TEXT]
    assert not missing


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_configurations_name_known_keys(path: Path) -> None:
    """Their files are not here, which is all that may be wrong with them; each opens with its command."""
    assert f"python -m data_prep.annotate configs/data/{path.name}" in path.read_text()
    with pytest.raises(ConfigError, match=r"no such (file|folder)"):
        parse_config((AnnotateArguments, SOURCES[path.stem]), [str(path)], prog="", description="")
