"""Fill a dataclass from plain values by pydantic, and say in the house's words what is wrong with them.

The values are validated before the dataclass is made, so that its `__post_init__` runs once and on valid ones.
"""

import dataclasses
import difflib
import enum
import functools
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NotRequired, Required, cast

import pydantic
from typing_extensions import TypedDict

from .errors import ConfigError, one_line

# what pydantic calls a type, and what a message calls it
_EXPECTED = {
    **{"valid integer": "a whole number", "valid number": "a number", "valid boolean": "true or false"},
    **{"valid string": "a text", "valid list": "a list", "dictionary": "a mapping"},
}
_MISSING = "is required"
_NAMED = re.compile(r"^(\w[\w.]*)(: )", re.DOTALL)  # a message that begins with its key


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


def fill(dtype: type, values: Mapping[str, Any], meant: set[str]) -> tuple[Any, list[tuple[str, str]]]:
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
    return {field.name: _narrowed(hints[field.name], field.metadata.get("choices")) for field in fields_of(dtype)}


def _narrowed(hint: Any, choices: Iterable[Any] | None) -> Any:
    members = typing.get_args(hint)
    if choices is not None:
        literal = typing.Literal[tuple(choices)]  # type: ignore[valid-type]
        return typing.Union[literal, None] if type(None) in members else literal  # noqa: UP007 - not known to mypy
    return next((item for item in members if isinstance(item, type) and issubclass(item, enum.Enum)), hint)


@functools.cache
def _adapter(dtype: type) -> pydantic.TypeAdapter[dict[str, Any]]:
    """A validator of a mapping with the dataclass's keys: `__init__` and `__post_init__` run once, on valid values."""
    required = {field.name for field in fields_of(dtype) if default_of(field) is dataclasses.MISSING}
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
            nested = [field.name for leaf in _leaves(hints[path[0]]) for field in fields_of(leaf)]
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
        # a list with a wrong item is no wrong list, whatever the other members of a union say
        and not (key in given and any(other.startswith(f"{key}.") for other in mistakes))
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


def fields_of(dtype: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(dtype) if field.init] if dataclasses.is_dataclass(dtype) else []


def default_of(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if callable(field.default_factory) else field.default


def _leaves(hint: Any) -> set[Any]:
    """The types that a hint is made of."""
    return {typing.get_origin(hint) or hint}.union(*map(_leaves, typing.get_args(hint)))


def _wants_list(hint: Any, value: Any) -> bool:
    """Whether a value is one item of the list that a key takes."""
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    lists = {typing.get_origin(member) for member in members if member is not type(None)} == {list}
    return lists and value is not None and not isinstance(value, list)
