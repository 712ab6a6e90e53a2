"""An installation that is not editable carries every file that the packages read."""

import configparser
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("crop_model", "data_prep", "train")


def carried() -> set[Path]:
    """Expand `options.package_data` of setup.cfg."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = {package: lines.split() for package, lines in setup["options.package_data"].items()}
    return {path for package, globs in patterns.items() for glob in globs for path in (ROOT / package).glob(glob)}


def test_every_file_beside_the_code_is_carried() -> None:
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.is_file()}
    beside = {path for path in files if path.suffix != ".py" and "__pycache__" not in path.parts}
    assert beside == carried() != set()


def test_every_folder_with_code_is_a_package() -> None:
    folders = {path.parent for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert all((folder / "__init__.py").is_file() for folder in folders)
