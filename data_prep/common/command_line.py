"""One grammar for every command: a YAML file and `key=value` words fill dataclasses.

    python -m train.plc CONFIG.yaml [key=value ...] [key.key=value ...]

    words ─► values and their origin, by key ─► pydantic checks each dataclass ─► instances, or every mistake at once

A word `key=value` overrides the file; its value is read as YAML. `lora.r=64` and `train_data.0.weight=0.5` set one
value inside a mapping or a list. `null` means None if the key's type allows it. A mistake is a line: file, key, reason.
"""

import dataclasses
import difflib
import enum
import functools
import os
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, Required, cast

import pydantic
import yaml
from typing_extensions import TypedDict

from .errors import ConfigError, one_line, user_errors

_KEY = r"[A-Za-z_]\w*(?:\.\w+)*"
_OVERRIDE = re.compile(rf"^(?:--)?({_KEY})=(.*)$", re.DOTALL)
_OPTION = re.compile(rf"^--({_KEY})$")
HELP = {"-h", "--help"}
_COMMAND_LINE = "command line"
# what pydantic calls a type, and what a message calls it
_EXPECTED = {
    **{"valid integer": "a whole number", "valid number": "a number", "valid boolean": "true or false"},
    **{"valid string": "a text", "valid list": "a list", "dictionary": "a mapping"},
}
_MISSING = "is required"
_NAMED = re.compile(r"^(\w[\w.]*)(: )", re.DOTALL)  # a message that begins with its key


class _Loader(yaml.SafeLoader):
    """YAML whose only booleans are true and false, and that has no dates: `save_strategy: no` is the word it is."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("bool", "timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$", re.IGNORECASE), list("tTfF"))


class Checked:
    """A dataclass whose values are checked against each other once they are set: every mistake is reported."""

    def mistakes(self) -> Iterator[str]:
        """Yield a line for each mistake, which begins with the key."""
        yield from ()

    def __post_init__(self) -> None:
        refuse(self.mistakes())


def refuse(mistakes: Iterable[str]) -> None:
    """Raise one ConfigError of all mistakes, if there are any."""
    if lines := list(mistakes):
        raise ConfigError(*lines)


# ---- commands

Kinds = tuple[type, ...]


@dataclass(frozen=True)
class Command:
    """A command: `main()` of a module and of its console script.

    Args:
        prog: how it is called, such as `python -m train.plc`.
        kinds: the dataclasses that its words fill; a function of the words if these decide which.
        run: the work; takes an instance of each dataclass, and may return an exit status.
        positionals: keys that may be given by their position, as of `parse_config`.
        ignore_others_in_file: as of `parse_config`.
    """

    prog: str
    kinds: Kinds | Callable[[Sequence[str]], Kinds]
    run: Callable[..., int | None]
    positionals: tuple[str, ...] = ()
    ignore_others_in_file: bool = False

    @property
    def description(self) -> str:
        """The first line of the docstring of `run`."""
        return str(self.run.__doc__).partition("\n")[0]

    def __call__(self, argv: Sequence[str] | None = None) -> None:
        """Run with the words of `argv`, or those of the command line; `user_errors` names the exit statuses."""
        words = sys.argv[1:] if argv is None else argv
        with user_errors(self.prog):
            parts = parse_config(
                self.kinds(words) if callable(self.kinds) else self.kinds,
                words,
                prog=self.prog,
                description=self.description,
                positionals=self.positionals,
                ignore_others_in_file=self.ignore_others_in_file,
            )
            status = self.run(*parts)
        if status is not None:
            raise SystemExit(status)


def command(
    module: str,
    *kinds: type,
    kinds_of: Callable[[Sequence[str]], Kinds] | None = None,
    positionals: tuple[str, ...] = (),
    ignore_others_in_file: bool = False,
) -> Callable[[Callable[..., int | None]], Command]:
    """Make a function on filled dataclasses the command `python -m MODULE`; see `Command`."""
    return lambda run: Command(f"python -m {module}", kinds_of or kinds, run, positionals, ignore_others_in_file)


# ---- words to dataclasses


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
        dataclass_types: dataclasses, whose nested ones are filled from mappings; a key belongs to one of them. Of a
            field's metadata, `help` explains it, `choices` lists its values, `renamed_from` is its former name, which
            stays valid with a notice, and `former_values` are (former, present) pairs of values under that name.
        argv: the words after the program's name. `key=value` (or `--key value`) is an override, `NAME.yaml` the
            configuration file (one at most), `--help` prints every key and exits with status 0, any other word is the
            next of `positionals`.
        prog: how the program is called, such as `python -m train.plc`.
        description: what the program does.
        positionals: keys that may be given by their position, in order, such as `("checkpoint", "out")`. The first
            takes several words if it ends in `...`.
        ignore_others_in_file: pass over keys of the file that no dataclass has, so that one file serves several
            programs; on the command line they stay an error.

    Returns:
        One instance for each of `dataclass_types`, in order.

    Raises:
        ConfigError: every unknown key, wrong type or choice, missing key and value that a dataclass refuses, a line
            each; or a missing file.
    """
    if HELP & set(argv):
        print(_help(dataclass_types, prog, description, positionals))
        raise SystemExit(0)
    values, origin, mistakes = _read_words(argv, positionals)
    values = _rename(dataclass_types, values, origin, mistakes, prog)
    keys = [field.name for dtype in dataclass_types for field in _fields(dtype)]
    meant = set(keys) if mistakes else set[str]()
    for key in [key for key in values if key not in keys]:
        if not (ignore_others_in_file and origin[key] != _COMMAND_LINE):
            close = difflib.get_close_matches(key, keys, n=1)
            meant |= {*close}
            mistakes.append(f"{origin[key]}: unknown key {key!r}" + (f" (did you mean {close[0]!r}?)" if close else ""))
    where = next((source for source in origin.values() if source != _COMMAND_LINE), _COMMAND_LINE)
    parts = []
    for dtype in dataclass_types:
        names = {field.name for field in _fields(dtype)}
        part, wrong = _fill(dtype, {key: values[key] for key in values if key in names}, meant & names)
        parts.append(part)
        mistakes += [f"{_origin_of(path, origin, where)}: {path}{': ' if path else ''}{text}" for path, text in wrong]
    refuse(mistakes)
    return tuple(parts)


def _fill(dtype: type, values: Mapping[str, Any], meant: set[str]) -> tuple[Any, list[tuple[str, str]]]:
    """An instance, or (path of the key, message) of every mistake. Keys of `meant` were given by a misspelled name."""
    hints = _accepted(dtype)
    values = {key: [value] if _wants_list(hints[key], value) else value for key, value in values.items()}
    wrong = [
        (key, f"expected a number, got {str(value).lower()}")
        for key, value in values.items()
        if any(isinstance(item, bool) for item in (value if isinstance(value, list) else [value]))
        and not {bool, str, dict, Any} & _leaves(hints[key])
    ]
    try:
        valid = _adapter(dtype).validate_python(values)
    except pydantic.ValidationError as error:
        booleans = dict(wrong)
        wrong += [
            (path, text)
            for path, text in _explain(error, values, hints)
            if path not in booleans and not (path in meant and text == _MISSING)
        ]
    if wrong or meant:
        return None, wrong
    try:
        return dtype(**valid), []
    except (ValueError, TypeError) as error:  # what a dataclass refuses in its __post_init__
        return None, [_split_key("", line) for line in _lines(error)]


@functools.cache
def _accepted(dtype: type) -> dict[str, Any]:
    """What each key of a dataclass accepts: its type, narrowed to its choices or its enumeration."""
    hints = typing.get_type_hints(dtype, include_extras=True)
    return {field.name: _narrowed(hints[field.name], field.metadata.get("choices")) for field in _fields(dtype)}


def _narrowed(hint: Any, choices: Iterable[Any] | None) -> Any:
    members = typing.get_args(hint)
    if choices is not None:
        literal = typing.Literal[tuple(choices)]  # type: ignore[valid-type]
        return typing.Union[literal, None] if type(None) in members else literal  # noqa: UP007 - not known to mypy
    return next((item for item in members if isinstance(item, type) and issubclass(item, enum.Enum)), hint)


@functools.cache
def _adapter(dtype: type) -> pydantic.TypeAdapter[dict[str, Any]]:
    """A validator of a mapping with the dataclass's keys: `__init__` and `__post_init__` run once, on valid values."""
    required = {field.name for field in _fields(dtype) if _default(field) is dataclasses.MISSING}
    keys = {key: (Required if key in required else NotRequired)[hint] for key, hint in _accepted(dtype).items()}
    mapping = cast(Any, TypedDict)(dtype.__name__, keys)
    mapping.__pydantic_config__ = pydantic.ConfigDict(extra="forbid", coerce_numbers_to_str=True)
    return pydantic.TypeAdapter(mapping)


def _explain(error: pydantic.ValidationError, values: Any, hints: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(path of the key, message) of every mistake; the members of a union are one."""
    mistakes: dict[str, list[str]] = {}
    given: dict[str, Any] = {}
    meant: set[str] = set()
    for item in error.errors(include_url=False):
        value, path, kind = values, list[str](), item["type"]
        for part in item["loc"]:  # which holds names of types, too
            if isinstance(value, list) and isinstance(part, int):
                value = value[part]
            elif isinstance(value, dict) and (part in value or kind == "missing"):
                value = value.get(part)
            else:
                continue
            path.append(str(part))
        key = ".".join(path)
        if kind == "value_error":
            said = [_split_key(key, line) for line in _lines(item["ctx"]["error"])]
        elif kind == "missing":
            said = [(key, _MISSING)]
        elif kind == "unexpected_keyword_argument":
            nested = [field.name for leaf in _leaves(hints[path[0]]) for field in _fields(leaf)]
            close = difflib.get_close_matches(path[-1], nested, n=1)
            meant |= {".".join([*path[:-1], name]) for name in close}
            said = [(key, f"unknown key (did you mean {close[0]!r}?)" if close else f"unknown key, none of {nested}")]
        else:
            text = str(item["msg"]).removeprefix("Input should be ")
            said, given[key] = [(key, next((ours for said, ours in _EXPECTED.items() if said in text), text))], value
        for key, text in said:
            if text not in mistakes.setdefault(key, []):
                mistakes[key].append(text)
    return [
        (key, text)
        for key, texts in mistakes.items()
        for text in ([_say(texts, given[key])] if key in given else texts)
        if not (key in meant and text == _MISSING)
    ]


def _lines(error: Exception) -> list[str]:
    return (str(error) if isinstance(error, ConfigError) else one_line(error)).splitlines()


def _say(expected: Sequence[str], value: Any) -> str:
    if value is None:
        return "may not be null"
    if isinstance(value, list) and not any("list" in text for text in expected):
        return "expected one value, got a list"
    return f"expected {' or '.join(expected)}, got {value!r}"


def _split_key(path: str, message: str) -> tuple[str, str]:
    """The key with which a message begins joins the path."""
    named = _NAMED.match(message)
    if named is None:
        return path, message
    return f"{path}{'.' if path else ''}{named[1]}", message[named.end() :]


def _origin_of(path: str, origin: Mapping[str, str], where: str) -> str:
    """Where a key or the nearest of its parents was given."""
    while path and path not in origin:
        path = path.rpartition(".")[0]
    return origin.get(path, where)


def _fields(dtype: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(dtype) if field.init] if dataclasses.is_dataclass(dtype) else []


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default


def _leaves(hint: Any) -> set[Any]:
    """The types that a hint is made of."""
    return {typing.get_origin(hint) or hint}.union(*map(_leaves, typing.get_args(hint)))


def _wants_list(hint: Any, value: Any) -> bool:
    """Whether a value is one item of the list that a key takes."""
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    lists = {typing.get_origin(member) for member in members if member is not type(None)} == {list}
    return lists and value is not None and not isinstance(value, list)


# ---- words to values


def _read_words(argv: Sequence[str], positionals: Sequence[str]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Values and their origin (file or command line), by key, and what is wrong with single words."""
    values: dict[str, Any] = {}
    origin: dict[str, str] = {}
    overrides: list[tuple[str, Any]] = []
    free: list[str] = []  # words that are no key's and no file
    mistakes: list[str] = []
    words = iter(argv)
    for word in words:
        if word.startswith("--local_rank="):  # the deepspeed launcher adds it; LOCAL_RANK is the same
            continue
        match, option = _OVERRIDE.match(word), _OPTION.match(word)
        if match or (option and (value := next(words, None)) is not None):
            key, text = (match[1], match[2]) if match else (word[2:], str(value))
            try:
                overrides.append((key, _load_yaml(text, f"{_COMMAND_LINE}: {key}")))
            except ConfigError as error:
                mistakes.append(str(error))
        elif word.endswith((".yaml", ".yml")):
            if values:
                raise ConfigError(f"{_COMMAND_LINE}: more than one configuration file: {word}")
            values = read_yaml(word)
            origin = dict.fromkeys(values, word)
        else:
            free.append(word)
    placed, free = _place(free, positionals)
    overrides += placed
    mistakes += [f"{_COMMAND_LINE}: {word!r} is neither a configuration file nor key=value" for word in free]
    for key, value in overrides:
        try:
            values = _put(values, key.split("."), value)
            origin.setdefault(key.partition(".")[0], _COMMAND_LINE)
            origin[key] = _COMMAND_LINE
        except LookupError as error:
            mistakes.append(f"{_COMMAND_LINE}: {key}: {error.args[0]}")
    return values, origin, mistakes


def _place(words: list[str], positionals: Sequence[str]) -> tuple[list[tuple[str, Any]], list[str]]:
    """The values of the keys that are given by position, and the remaining words."""
    placed: list[tuple[str, Any]] = []
    for name in positionals[: len(words)]:
        count = max(1, len(words) - len(positionals) + 1) if name.endswith("...") else 1
        placed.append((name.removesuffix("..."), words[:count] if name.endswith("...") else words[0]))
        words = words[count:]
    return placed, words


def _put(holder: Any, path: Sequence[str], value: Any, name: str = "") -> Any:
    """A copy of nested mappings and lists with one value set; LookupError if one of them is not there."""
    if not path:
        return value
    key, *rest = path
    name_of_key = f"{name}.{key}" if name else key
    if isinstance(holder, list) and key.isdigit() and int(key) < len(holder):
        number = int(key)
        return [*holder[:number], _put(holder[number], rest, value, name_of_key), *holder[number + 1 :]]
    if isinstance(holder, dict) or (holder is None and not key.isdigit()):
        holder = holder or {}
        return holder | {key: _put(holder.get(key), rest, value, name_of_key)}
    found = "not there" if holder is None else f"a list of {len(holder)}" if isinstance(holder, list) else repr(holder)
    raise LookupError(f"there is no {key} in {name}, which is {found}")


def _rename(
    dataclass_types: Sequence[type], values: dict[str, Any], origin: dict[str, str], mistakes: list[str], prog: str
) -> dict[str, Any]:
    """The values under the present names of their keys, with a notice on stderr for each former one."""
    renamed = current_names(dataclass_types, values)
    for dtype in dataclass_types:
        for field in _fields(dtype):
            former = field.metadata.get("renamed_from")
            if former not in values:
                continue
            if field.name in values:
                mistakes.append(f"{origin[former]}: {former}: is the former name of {field.name}, which is given too")
            elif os.environ.get("RANK", "0") == "0":
                print(f"{prog}: {origin[former]}: {former}: is now called {field.name}", file=sys.stderr)
            origin.setdefault(field.name, origin[former])
    return renamed


def current_names(dataclass_types: Sequence[type], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by key, former keys and their values replaced by the present ones."""
    renamed = dict(values)
    for field in [field for dtype in dataclass_types for field in _fields(dtype)]:
        former = field.metadata.get("renamed_from")
        if former in renamed:
            value = renamed.pop(former)
            pairs = field.metadata.get("former_values", ())
            renamed.setdefault(field.name, next((new for old, new in pairs if old == value), value))
    return renamed


def peek_value(argv: Sequence[str], key: str) -> str | None:
    """The text that `argv` gives `key`, or None: for a key that decides which other keys there are."""
    values, _, _ = _read_words([word for word in argv if word not in HELP], ())
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


# ---- the keys explained


def _help(dataclass_types: Sequence[type], prog: str, description: str, positionals: Sequence[str]) -> str:
    """Usage, then every key with its type, its default and what it is for."""
    places = "".join(f" {name.upper()}" for name in positionals)
    lines = [f"usage: {prog}{places} [CONFIG.yaml] [key=value ...]", "", description]
    for dtype in dataclass_types:
        lines += ["", f"{dtype.__name__}:"]
        for field in _fields(dtype):
            lines.append(f"  {field.name} ({_state(field, _default(field))})\n      {_about(field)}")
    return "\n".join(lines)


def _state(field: dataclasses.Field[Any], default: Any) -> str:
    return "required" if default is dataclasses.MISSING else f"default: {default}"


def _about(field: dataclasses.Field[Any]) -> str:
    return " ".join(str(field.metadata.get("help", "")).replace("%%", "%").split())
