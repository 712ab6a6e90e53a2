"""Fill a dataclass from plain values by pydantic, and say in the house's words what is wrong with them.

The values are validated before the dataclass is made, so that its `__post_init__` runs once and on valid ones.
"""

import contextlib
import dataclasses
import difflib
import enum
import functools
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NoReturn, NotRequired, Required, cast

import pydantic
from typing_extensions import TypedDict

from .errors import ConfigError, one_line

# what pydantic calls a type, and what a message calls it
_EXPECTED = {
    **{"valid integer": "a whole number", "valid number": "a number", "valid boolean": "true or false"},
    **{"valid string": "a text", "valid list": "a list", "dictionary": "a mapping"},
}
_MISSING = "is required"
_NAMED = re.compile(r"\w[\w.]*: ")  # a message that begins with its key


def key(default: Any, help: str, **metadata: Any) -> Any:
    """Declare a key of a configuration that has a default value: a field of a dataclass.

    Args:
        default: the value; a class such as list makes one for each instance.
        help: what the key means.
        metadata: `choices` lists the key's values, `renamed_from` is its former name, which stays valid with a notice,
            and `former_values` are (former, present) pairs of values under that name.
    """
    given: dict[str, Any] = {"default_factory" if callable(default) else "default": default}
    return dataclasses.field(**given, metadata={"help": help, **metadata})


class Checked:
    """Check a dataclass's values against each other once they are set, and report every mistake."""

    def mistakes(self) -> Iterator[str]:
        """Yield a line for each mistake, which begins with the key."""
        yield from ()

    def __post_init__(self) -> None:
        refuse(self.mistakes())


def refuse(mistakes: Iterable[str]) -> None:
    """Raise one ConfigError of all mistakes, if there are any."""
    if lines := list(mistakes):
        raise ConfigError(*lines)


def fill(dtype: type, values: Mapping[str, Any], meant: set[str]) -> tuple[Any, list[tuple[str, str]]]:
    """Make an instance, or return (path of the key, message) of every mistake.

    Keys of `meant` were given by a misspelled name: their absence is no mistake of its own.
    """
    hints = _accepted(dtype)
    values = {key: [value] if _wants_list(hints[key], value) else value for key, value in values.items()}
    booleans = {
        key: f"expected a number, got {str(value).lower()}"
        for key, value in values.items()
        if any(isinstance(item, bool) for item in (value if isinstance(value, list) else [value]))
        and not {bool, str, dict, Any} & leaves(hints[key])
    }
    wrong = list(booleans.items())
    try:
        valid = _adapter(dtype).validate_python(values)
    except pydantic.ValidationError as error:
        explained = _explain(error, values, hints, meant)
        wrong += [(path, text) for path, text in explained if path not in booleans]
    if wrong or meant:
        return None, wrong + _refused_of_the_rest(dtype, values, {path.partition(".")[0] for path, _ in wrong})
    try:
        return dtype(**valid), []
    except (ValueError, TypeError) as error:  # what a dataclass refuses in its __post_init__
        return None, _refused("", error)


class _UnknownError(Exception):
    """Report that a check reads a key that has no valid value."""


def _unknown(_: Any) -> NoReturn:
    raise _UnknownError


def _refused_of_the_rest(dtype: Any, values: Mapping[str, Any], wrong: set[str]) -> list[tuple[str, str]]:
    """Return what the checks of a dataclass refuse, up to the first one that reads a key without a valid value.

    The checks run on an instance of a subclass whose wrong and missing keys raise when they are read: what a check says
    of a default that stands in for a wrong value would be wrong itself.
    """
    if Checked not in (dtype.__mro__ if isinstance(dtype, type) else ()):
        return []
    valid = _adapter(dtype, partial=True).validate_python({key: values[key] for key in values.keys() - wrong})
    defaults = {field.name: default_of(field) for field in fields_of(dtype) if field.name not in wrong | valid.keys()}
    unknown = wrong | {name for name, default in defaults.items() if default is dataclasses.MISSING}
    rest: Any = object.__new__(type(dtype.__name__, (dtype,), {name: property(_unknown) for name in unknown}))
    vars(rest).update(defaults | valid)
    lines: list[str] = []
    with contextlib.suppress(_UnknownError):
        lines.extend(rest.mistakes())
    return _refused("", ConfigError(*lines))


@functools.cache
def _accepted(dtype: type) -> dict[str, Any]:
    """Return what each key of a dataclass accepts: its type, narrowed to its choices or its enumeration."""
    hints, fields = typing.get_type_hints(dtype, include_extras=True), fields_of(dtype)
    return {field.name: _narrowed(hints[field.name], field.metadata.get("choices", ())) for field in fields}


def _narrowed(hint: Any, choices: Iterable[Any]) -> Any:
    members = typing.get_args(hint)
    if literals := tuple(choices):
        return Literal[(*literals, None) if type(None) in members else literals]
    return next((item for item in members if isinstance(item, type) and issubclass(item, enum.Enum)), hint)


@functools.cache
def _adapter(dtype: type, partial: bool = False) -> pydantic.TypeAdapter[dict[str, Any]]:
    """Return a validator of a mapping with the dataclass's keys; `partial`: none is required."""
    fields = [] if partial else fields_of(dtype)
    required = {field.name for field in fields if default_of(field) is dataclasses.MISSING}
    keys = {key: (Required if key in required else NotRequired)[hint] for key, hint in _accepted(dtype).items()}
    mapping = cast(Any, TypedDict)(dtype.__name__, keys)
    mapping.__pydantic_config__ = pydantic.ConfigDict(extra="forbid", coerce_numbers_to_str=True)
    return pydantic.TypeAdapter(mapping)


def _explain(
    error: pydantic.ValidationError, values: Any, hints: Mapping[str, Any], meant: set[str]
) -> list[tuple[str, str]]:
    """Return (path of the key, message) of every mistake; what the members of a union expect is one."""
    mistakes: dict[str, dict[str, None]] = {}  # by path, ordered sets
    given: dict[str, Any] = {}
    holders: dict[str, tuple[dict[str, Any], set[str]]] = {}  # mappings inside the values, and their wrong keys
    meant = set(meant)
    for item in error.errors(include_url=False):
        path, value, holder, kind = *_locate(item, values), item["type"]
        if holder is not None:
            holders.setdefault(holder[0], (holder[1], set()))[1].add(holder[2])
        key = ".".join(path)
        if kind == "value_error":
            reasons = _refused(key, item["ctx"]["error"])
        elif kind == "missing":
            reasons = [(key, _MISSING)]
        elif kind == "unexpected_keyword_argument":
            nested = [field.name for leaf in leaves(hints[path[0]]) for field in fields_of(leaf)]
            close = difflib.get_close_matches(path[-1], nested, n=1)
            meant |= {".".join([*path[:-1], name]) for name in close}
            reasons = [
                (key, f"unknown key (did you mean {close[0]!r}?)" if close else f"unknown key, none of {nested}")
            ]
        else:
            text = str(item["msg"]).removeprefix("Input should be ")
            reasons = [(key, next((ours for theirs, ours in _EXPECTED.items() if theirs in text), text))]
            given[key] = value
        for key, text in reasons:
            mistakes.setdefault(key, {})[text] = None
    for key, value in given.items():  # a list with a wrong item is no wrong list for the other members of a union
        has_wrong_item = any(other.startswith(f"{key}.") for other in mistakes)
        mistakes[key] = {} if has_wrong_item else {_say(mistakes[key], value): None}
    for key, text in _refused_beside(holders, hints):
        mistakes.setdefault(key, {text: None})
    return [(key, text) for key, texts in mistakes.items() for text in texts if text != _MISSING or key not in meant]


def _locate(item: Any, values: Any) -> tuple[list[str], Any, tuple[str, dict[str, Any], str] | None]:
    """Return the path of a mistake, the value there, and the nested mapping that has it: its path, itself, the key."""
    path, value, holder = list[str](), values, None
    for part in item["loc"]:  # which holds names of types, too
        if isinstance(value, list) and isinstance(part, int):
            value = value[part]
        elif isinstance(value, dict) and (part in value or item["type"] == "missing"):
            holder = (".".join(path), value, str(part)) if path else None
            value = value.get(part)
        else:
            continue
        path.append(str(part))
    return path, value, holder


def _refused_beside(
    holders: Mapping[str, tuple[dict[str, Any], set[str]]], hints: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    """Yield (path of the key, message) of what nested dataclasses refuse beside their wrong keys."""
    for path, (mapping, wrong) in holders.items():
        for leaf in leaves(hints[path.partition(".")[0]]):
            yield from ((f"{path}.{name}", text) for name, text in _refused_of_the_rest(leaf, mapping, wrong))


def _say(expected: Iterable[str], value: Any) -> str:
    if value is None:
        return "may not be null"
    if isinstance(value, list) and not any("list" in text for text in expected):
        return "expected one value, got a list"
    return f"expected {' or '.join(expected)}, got {value!r}"


def _refused(path: str, error: Exception) -> list[tuple[str, str]]:
    """Return (path, message) of what a dataclass refuses: the key with which a message begins joins the path."""
    lines = (str(error) if isinstance(error, ConfigError) else one_line(error)).splitlines()
    split = [line.partition(": ") if _NAMED.match(line) else ("", "", line) for line in lines]
    return [(".".join(filter(None, (path, key))), reason) for key, _, reason in split]


def fields_of(dtype: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(dtype) if field.init] if dataclasses.is_dataclass(dtype) else []


def default_of(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default


def leaves(hint: Any) -> set[Any]:
    """Return the types that a hint is made of."""
    return {typing.get_origin(hint) or hint}.union(*map(leaves, typing.get_args(hint)))


def _wants_list(hint: Any, value: Any) -> bool:
    """Check whether a value is one item of the list that a key takes."""
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    origins = {typing.get_origin(member) for member in members if member is not type(None)}
    return origins == {list} and not isinstance(value, list | None)
