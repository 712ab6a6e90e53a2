"""Check that this interpreter has what pyproject.toml requires, with the extras that the command line names.

Installs nothing: one line on stderr and exit status 2 name what is missing or outside its range.
"""

import re
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def required(project: dict[str, Any], extras: list[str]) -> list[str]:
    """Return the requirements of the extras, which may name each other."""
    requirements: list[str] = []
    for requirement in (line for extra in extras for line in project["optional-dependencies"][extra]):
        nested = re.fullmatch(rf"{project['name']}\[(.*)\]", requirement)
        requirements += required(project, nested[1].split(",")) if nested else [requirement]
    return requirements


def problem(requirement: str) -> str | None:
    """Return the requirement, with the version that is there, if it is not met.

    Pre-releases meet a requirement: the torch of a container has a version such as 2.9.0a0+50eac811a6.nv25.9.
    """
    try:
        present = version(re.split(r"[<>=\[]", requirement)[0])
    except PackageNotFoundError:
        return requirement
    if find_spec("packaging") is None:  # then main reports that, beside much else
        return None
    from packaging.requirements import Requirement  # noqa: PLC0415

    met = Requirement(requirement).specifier.contains(present, prereleases=True)
    return None if met else f"{requirement} (has {present})"


def main() -> None:
    """Check, and exit."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    requirements = ["packaging", *project["dependencies"], *required(project, sys.argv[1:])]
    if problems := {requirement: line for requirement in requirements if (line := problem(requirement))}:
        install = f"{sys.executable} -m pip install {' '.join(map(repr, problems))}"
        line = f"CROP_PYTHON={sys.executable} lacks {', '.join(problems.values())}: {install}"
        print(f"install.sh: error: {line}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
