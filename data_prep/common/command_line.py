"""One grammar for every entry point: a flat YAML file and `key=value` words fill dataclasses.

    python -m train.plc CONFIG.yaml [key=value ...]

A word `key=value` overrides the file; its value is read as YAML. The mapping becomes command-line arguments of
transformers' `HfArgumentParser`, so types, choices and required keys are argparse's business; what is added here is
that an error names the file and the key. `null` means None where the key's type allows it.
"""

import argparse
import dataclasses
import difflib
import json
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from .errors import ConfigError, one_line

_OVERRIDE = re.compile(r"^(--)?([A-Za-z_]\w*)=(.*)$", re.DOTALL)

HELP = {"-h", "--help"}

_OPTION = re.compile(r"^--[A-Za-z_]\w*$")

_COMMAND_LINE = "command line"


class _Loader(yaml.SafeLoader):
    """YAML whose only booleans are true and false: `save_strategy: no` is the word it looks like."""


_BOOL = "tag:yaml.org,2002:bool"

_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

_Loader.add_implicit_resolver(_BOOL, re.compile("^(true|false)$", re.IGNORECASE), list("tTfF"))


class _Parser(HfArgumentParser):
    """`HfArgumentParser` that raises instead of leaving the process."""

    def error(self, message: str) -> typing.NoReturn:
        raise ConfigError(message)


def parse_config(
    dataclass_types: Sequence[type],
    argv: Sequence[str],
    *,
    prog: str,
    description: str,
    positionals: Sequence[str] = (),
    ignore_others_in_file: bool = False,
) -> tuple[Any, ...]:
    """Fill dataclasses from the words of a command line.

    Args:
        dataclass_types: dataclasses as `HfArgumentParser` takes them; a key belongs to one of them.
        argv: the words after the program's name. `key=value` (or `--key value`) is an override, `NAME.yaml` the
            configuration file (one at most), `--help` prints every key and exits with status 0, any other word is the
            next of `positionals`.
        prog: how the program is called, such as `python -m train.plc`.
        description: what the program does.
        positionals: keys that may be given by their place, in order, such as `("checkpoint", "out")`.
        ignore_others_in_file: pass over keys of the file that no dataclass has, so that one file serves several
            programs; on the command line they stay an error.

    Returns:
        One instance for each of `dataclass_types`, in order.

    Raises:
        ConfigError: an unknown key, a wrong type or choice, a missing file or key, or a value the dataclass refuses.
    """
    if HELP & set(argv):
        print(_help(dataclass_types, prog, description, positionals))
        raise SystemExit(0)
    values, origin = _read_words(argv, positionals)
    hints = {name: hint for dtype in dataclass_types for name, hint in typing.get_type_hints(dtype).items()}
    keys = [field.name for dtype in dataclass_types for field in dataclasses.fields(dtype) if field.init]
    if ignore_others_in_file:
        values = {key: value for key, value in values.items() if key in keys or origin[key] == _COMMAND_LINE}
    for key in values:
        if key not in keys:
            close = difflib.get_close_matches(key, keys, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ConfigError(f"{origin[key]}: unknown key {key!r}{hint}")
        if values[key] is None and type(None) not in typing.get_args(hints[key]):
            raise ConfigError(f"{origin[key]}: {key}: may not be null")
        if isinstance(values[key], list) and not _takes_list(hints[key]):
            raise ConfigError(f"{origin[key]}: {key}: expected one value, got a list")
    parser = _Parser(dataclass_types, prog=prog, allow_abbrev=False, exit_on_error=False)
    # null and the empty list cannot be said in words
    parser.set_defaults(**{key: value for key, value in values.items() if value is None or value == []})
    where = next((source for source in origin.values() if source != _COMMAND_LINE), _COMMAND_LINE)
    try:
        return parser.parse_args_into_dataclasses(_to_arguments(values), look_for_args_file=False)
    except argparse.ArgumentError as error:
        key = (error.argument_name or "").split("/")[0].removeprefix("--")
        raise ConfigError(f"{origin.get(key, where)}: {key}: {error.message}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {_name_keys(str(error))}") from None
    except (ValueError, TypeError) as error:  # what a dataclass refuses in its __post_init__
        raise ConfigError(f"{where}: {one_line(error)}") from error


def _read_words(argv: Sequence[str], positionals: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Values and their origin (file or command line), by key."""
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    overrides: dict[str, Any] = {}
    free = list(positionals)
    words = iter(argv)
    for word in words:
        match = _OVERRIDE.match(word)
        if word.startswith("--local_rank="):  # the deepspeed launcher adds it; LOCAL_RANK says the same
            continue
        if match:
            overrides[match[2]] = _load_yaml(match[3], f"{_COMMAND_LINE}: {match[2]}")
        elif _OPTION.match(word) and (value := next(words, None)) is not None:
            overrides[word[2:]] = _load_yaml(value, f"{_COMMAND_LINE}: {word[2:]}")
        elif word.endswith((".yaml", ".yml")):
            if values:
                raise ConfigError(f"{_COMMAND_LINE}: more than one configuration file: {word}")
            values = read_yaml(word)
            origin = dict.fromkeys(values, word)
        elif free:
            overrides[free.pop(0)] = word
        else:
            raise ConfigError(f"{_COMMAND_LINE}: {word!r} is neither a configuration file nor key=value")
    values |= overrides
    origin |= dict.fromkeys(overrides, _COMMAND_LINE)
    return values, origin


def peek_value(argv: Sequence[str], key: str) -> str | None:
    """The text that `argv` gives `key`, or None: for a key that decides which other keys there are."""
    values, _ = _read_words([word for word in argv if word not in HELP], ())
    value = values.get(key)
    return value if isinstance(value, str) else None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; a ConfigError names the file if it is missing or holds anything else."""
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such file")
    values = _load_yaml(Path(path).read_text(encoding="utf-8"), str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected 'key: value' lines")
    return {str(key): value for key, value in values.items()}


def _load_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {one_line(error)}") from None


def _to_arguments(values: dict[str, Any]) -> list[str]:
    """{"max_steps": 3, "train_data": [{...}]} -> ["--max_steps=3", "--train_data", "{...}"]; mappings become JSON."""
    arguments = []
    for key, value in values.items():
        if value is None or value == []:
            continue
        if isinstance(value, list):
            arguments += [f"--{key}", *map(_to_text, value)]
        else:
            arguments.append(f"--{key}={_to_text(value)}")
    return arguments


def _to_text(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _takes_list(hint: Any) -> bool:
    members = (hint,) if typing.get_origin(hint) is list else typing.get_args(hint)  # of X | Y
    return list in [typing.get_origin(member) or member for member in members]


def _name_keys(message: str) -> str:
    """argparse's `--max_steps/--max-steps` is the key `max_steps` here."""
    return re.sub(r"--([\w]+)(/--[\w-]+)?", r"\1", message)


def _help(dataclass_types: Sequence[type], prog: str, description: str, positionals: Sequence[str]) -> str:
    """Usage, then every key with its type, its default and what it is for."""
    places = "".join(f" {name.upper()}" for name in positionals)
    lines = [f"usage: {prog}{places} [CONFIG.yaml] [key=value ...]", "", description]
    for dtype in dataclass_types:
        lines += ["", f"{dtype.__name__}:"]
        for field in dataclasses.fields(dtype):
            if field.init:
                default = field.default_factory() if callable(field.default_factory) else field.default
                state = "required" if default is dataclasses.MISSING else f"default: {default}"
                about = " ".join(str(field.metadata.get("help", "")).replace("%%", "%").split())
                lines.append(f"  {field.name} ({state})\n      {about}")
    return "\n".join(lines)
