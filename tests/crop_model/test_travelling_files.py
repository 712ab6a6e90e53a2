"""What a checkpoint carries: the files that its classes import, all of them flat, and nothing else."""

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers.dynamic_module_utils import custom_object_save

import crop_model

PACKAGE = Path(crop_model.__file__).parent
FAMILIES = {
    "crop_llava": ("configuration_crop_llava", "modeling_crop_llava", "processing_crop_llava"),
    "localizer": ("processing_qwen2_vl",),
}
LOOSE = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def relative_imports(name: str) -> set[str]:
    """The modules that a loose file imports from its own package, wherever in the file; anything but `.x` fails."""
    imported = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "crop_model" for alias in node.names), name
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] != "crop_model", f"{name}: an import that does not travel"
            if node.level:
                assert node.level == 1 and node.module is not None, f"{name}: transformers follows `from .x` alone"
                imported.add(node.module)
    return imported


def closure(names: tuple[str, ...]) -> set[str]:
    """These modules, and all that they import relatively."""
    needed: set[str] = set()
    waiting = set(names)
    while waiting:
        name = waiting.pop()
        needed.add(name)
        waiting |= relative_imports(name) - needed
    return needed


@pytest.mark.parametrize("family", FAMILIES)
def test_an_export_holds_exactly_the_files_that_its_family_needs(family: str, tmp_path: Path) -> None:
    for name in FAMILIES[family]:
        module = f"crop_model.{name}"
        __import__(module)
        custom_object_save(SimpleNamespace(__module__=module), tmp_path)  # as `save_pretrained` of an Auto class does
    assert {path.stem for path in tmp_path.iterdir()} == closure(FAMILIES[family])


@pytest.mark.parametrize("name", LOOSE)
def test_a_loose_file_imports_loose_files_alone(name: str) -> None:
    assert relative_imports(name) <= set(LOOSE)


def test_every_loose_file_travels_with_some_family() -> None:
    assert set().union(*map(closure, FAMILIES.values())) == set(LOOSE)
