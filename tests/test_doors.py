"""Every command: a loose file with a console script and help."""

import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from data_prep.common.command_line import Command
from tests.keys_page import PAGE, page

ROOT = Path(__file__).parents[1]
DOORS = [
    f"{package}.{path.stem}"
    for package in ("train", "data_prep")
    for path in sorted((ROOT / package).glob("*.py"))
    if path.stem != "__init__"
]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def test_every_console_script_is_a_door_and_every_door_has_one() -> None:
    assert sorted(SCRIPTS.values()) == sorted(f"{door}:main" for door in DOORS)
    assert all(name.startswith("crop-") for name in SCRIPTS)


@pytest.mark.parametrize("door", [*DOORS, "train.demo.base", "train.demo.grounding"])
def test_every_door_has_help(door: str, capsys: pytest.CaptureFixture) -> None:
    main = import_module(door).main
    assert isinstance(main, Command)
    capsys.readouterr()  # DeepSpeed logs to stdout when it is imported first
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m {door} ")
    with pytest.raises(SystemExit) as caught:
        main(["no_such_key=1"])
    assert caught.value.code == 2
    assert "command line: unknown key 'no_such_key'" in capsys.readouterr().err


def test_the_page_of_keys_is_what_the_dataclasses_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "docs/keys.md is stale: python -m tests.keys_page rewrites it"
