"""Write docs/keys.md, every key of every command, from the dataclasses that the commands fill.

python -m tests.keys_page
"""

import dataclasses
import inspect
import re
import tomllib
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from data_prep.common.command_line import Command
from data_prep.common.markdown import markdown_table
from data_prep.sources import SOURCES

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "keys.md"
OURS = ("crop_model", "data_prep", "train")
INTRODUCTION = """# Keys

Every command takes one YAML file and words: `COMMAND [CONFIG.yaml] [key=value ...]`. A word overrides the file, and
`lora.r=64` or `train_data.0.weight=0.5` sets one value inside a mapping or a list. `--help` prints a command's keys.
A training also takes every key of transformers' `TrainingArguments`, and an annotation those of its source's reader.

This page is written by `python -m tests.keys_page`; a test compares it with the code.
"""


def page() -> str:
    """Return the text of docs/keys.md."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    rows, kinds = [], dict[type, None]()
    for script, target in scripts.items():
        door: Command = getattr(import_module(target.partition(":")[0]), "main")  # noqa: B009 - mypy knows no module
        own = [dtype for kind in door_kinds(door) for dtype in owners(kind)]
        kinds |= dict.fromkeys(own)
        places = " ".join(name.upper() for name in door.positionals)
        rows.append([f"`{script}`", f"`{door.prog}`", places, door.description, links(own)])
    kinds |= dict.fromkeys(dtype for reader in SOURCES.values() for dtype in owners(reader))
    readers = [[f"`{name}`", links(owners(reader))] for name, reader in SOURCES.items()]
    nested = {leaf: None for kind in kinds for hint in typing.get_type_hints(kind).values() for leaf in leaves(hint)}
    sections = [section(kind) for kind in [*kinds, *nested]]
    header = ["command", "module", "by position", "what it does", "keys"]
    tables = [markdown_table(header, rows), "", markdown_table(["source of an annotation", "its keys"], readers), ""]
    return "\n".join([INTRODUCTION, *tables, *sections]).rstrip() + "\n"


def links(kinds: list[type]) -> str:
    """Return links to the sections of dataclasses."""
    return ", ".join(f"[{dtype.__name__}](#{dtype.__name__.lower()})" for dtype in kinds)


def door_kinds(door: Command) -> tuple[type, ...]:
    """Return the dataclasses that a command always fills."""
    return door.kinds(()) if callable(door.kinds) else door.kinds


def owners(kind: type) -> list[type]:
    """Return the dataclass and its bases of this project that have keys of their own, bases first."""
    return [dtype for dtype in reversed(kind.__mro__) if dtype.__module__.split(".")[0] in OURS and own_keys(dtype)]


def own_keys(dtype: Any) -> list[dataclasses.Field[Any]]:
    """Return the keys that a dataclass declares itself."""
    declared = inspect.get_annotations(dtype)
    fields = dataclasses.fields(dtype) if dataclasses.is_dataclass(dtype) else ()
    return [field for field in fields if field.init and field.name in declared]


def leaves(hint: Any) -> Iterator[type]:
    """Yield the dataclasses of this project inside a type."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and hint.__module__.split(".")[0] in OURS:
        yield hint
    for part in typing.get_args(hint):
        yield from leaves(part)


def section(dtype: type) -> str:
    """Return a heading, what the class is for, and the table of its own keys."""
    hints = typing.get_type_hints(dtype)
    rows = []
    for field in own_keys(dtype):
        meaning = " ".join(str(field.metadata.get("help", "")).replace("%%", "%").split())
        if former := field.metadata.get("renamed_from"):
            meaning += f" Formerly `{former}`."
        rows.append([f"`{field.name}`", type_of(field, hints[field.name]), default_of(field), meaning])
    about = str(inspect.getdoc(dtype)).partition("\n\nRaises:")[0].partition("\n\nClass attributes:")[0].rstrip()
    header = ["key", "type", "default", "meaning"]
    return f"## {dtype.__name__}\n\n{about}\n\n{markdown_table(header, escaped(rows))}\n"


def escaped(rows: list[list[str]]) -> list[list[str]]:
    """Return cells without what Markdown takes for the end of a cell or for HTML."""
    return [[re.sub(r"<(?=\w)", "\\<", cell.replace("|", "\\|")) for cell in row] for row in rows]


def type_of(field: dataclasses.Field[Any], hint: Any) -> str:
    """Return the choices or the type, null for None."""
    if "choices" in field.metadata:
        return ", ".join(f"`{choice}`" for choice in field.metadata["choices"])
    name = hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)
    return re.sub(r"(?:\w+\.)+(\w+)", r"\1", name).replace(" | ", " or ").replace("None", "null")


def default_of(field: dataclasses.Field[Any]) -> str:
    """Return the default as YAML writes it, without what depends on the machine."""
    if "default_text" in field.metadata:
        return str(field.metadata["default_text"])
    value = field.default_factory() if callable(field.default_factory) else field.default
    if value is dataclasses.MISSING:
        return "required"
    words = {None: "null", True: "true", False: "false", "": "''"}
    is_word = value is None or isinstance(value, bool) or value == ""
    return f"`{words[value] if is_word else repr(value) if isinstance(value, str) and chr(10) in value else value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
