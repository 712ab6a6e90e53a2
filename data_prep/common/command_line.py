"""One grammar for every command: a YAML file and `key=value` words fill dataclasses.

    python -m train.plc CONFIG.yaml [key=value ...] [key.key=value ...]

    words ─► values and their origin, by key ─► pydantic checks each dataclass ─► instances, or every mistake at once

A word `key=value` overrides the file; its value is read as YAML. `lora.r=64` and `train_data.0.weight=0.5` set one
value inside a mapping or a list. `null` means None if the key's type allows it. A mistake is a line: file, key, reason.
"""

import difflib
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import ConfigError, one_line, user_errors
from .fill import default_of, fields_of, fill, refuse

_KEY = r"[A-Za-z_]\w*(?:\.\w+)*"
_OVERRIDE = re.compile(rf"^(?:--)?({_KEY})=(.*)$", re.DOTALL)
_OPTION = re.compile(rf"^--({_KEY})$")
HELP = {"-h", "--help"}
_COMMAND_LINE = "command line"


class _Loader(yaml.SafeLoader):
    """Load YAML whose only booleans are true and false, and that has no dates: `save_strategy: no` is a text.

    A key that is given twice is an error, as YAML says: the last one would silently win.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        counts = Counter(key.value for key in keys)
        for key in reversed(keys):
            if counts[key.value] > 1:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: {key.value} is given twice")
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in ("bool", "timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$", re.IGNORECASE), list("tTfF"))


# ---- commands


@dataclass(frozen=True)
class Command:
    """Run a function on filled dataclasses: `main()` of a module and of its console script.

    `run` takes an instance of each of `kinds`, which may depend on the words, and may return an exit status;
    `parse_config` explains the other fields.
    """

    prog: str
    kinds: tuple[type, ...] | Callable[[Sequence[str]], tuple[type, ...]]
    run: Callable[..., int | None]
    positionals: tuple[str, ...] = ()
    ignore_others_in_file: bool = False

    @property
    def description(self) -> str:
        """Return the first line of the docstring of `run`."""
        return str(self.run.__doc__).partition("\n")[0]

    def __call__(self, argv: Sequence[str] | None = None) -> None:
        """Run with the words of `argv`, or those of the command line; `user_errors` names the exit statuses."""
        words = sys.argv[1:] if argv is None else argv
        with user_errors(self.prog):
            kinds = self.kinds(words) if callable(self.kinds) else self.kinds
            options = self.prog, self.description, self.positionals, self.ignore_others_in_file
            parts, located = _parse(kinds, words, *options)
            try:
                status = self.run(*parts)
            except ConfigError as error:  # found behind the dataclasses' own checks
                raise ConfigError(*map(located, str(error).splitlines())) from None
        if status is not None:
            raise SystemExit(status)


def command(
    module: str, *kinds: type, kinds_of: Callable[[Sequence[str]], tuple[type, ...]] | None = None, **options: Any
) -> Callable[[Callable[..., int | None]], Command]:
    """Make a function on filled dataclasses the command `python -m MODULE`; `options` are those of `Command`."""
    return lambda run: Command(f"python -m {module}", kinds_of or kinds, run, **options)


# ---- words to dataclasses


def parse_config(
    dataclass_types: Sequence[type],
    argv: Sequence[str],
    prog: str,
    description: str,
    positionals: Sequence[str] = (),
    ignore_others_in_file: bool = False,
) -> tuple[Any, ...]:
    """Fill dataclasses from the words of a command line; return one instance of each, in order.

    Args:
        dataclass_types: dataclasses, whose nested ones are filled from mappings; a key belongs to one of them. See
            `fill.key` for what the metadata of their fields means.
        argv: the words after the program's name. `key=value` (or `--key value`) is an override, `NAME.yaml` the
            configuration file (one at most), `--help` prints every key and exits with status 0, any other word is the
            next of `positionals`.
        prog: how the program is called, such as `python -m train.plc`.
        description: what the program does.
        positionals: keys that may be given by their position, in order, such as `("checkpoint", "out")`. The first
            takes several words if it ends in `...`.
        ignore_others_in_file: ignore keys of the file that no dataclass has, so that one file serves several
            programs; on the command line they stay an error.

    Raises:
        ConfigError: every unknown key, wrong type or choice, missing key and value that a dataclass refuses, a line
            each; or a missing file.
    """
    return _parse(dataclass_types, argv, prog, description, positionals, ignore_others_in_file)[0]


def _parse(
    dataclass_types: Sequence[type],
    argv: Sequence[str],
    prog: str,
    description: str,
    positionals: Sequence[str],
    ignore_others_in_file: bool,
) -> tuple[tuple[Any, ...], Callable[[str], str]]:
    """Do the work of `parse_config`; return a function, too, that puts the origin before a line that names a key."""
    if HELP & set(argv):
        print(_help(dataclass_types, prog, description, positionals))
        raise SystemExit(0)
    given, origin, mistakes = _read_words(argv, positionals)
    fields = [field for dtype in dataclass_types for field in fields_of(dtype)]
    for field in fields:
        mistakes += _accept_former_name(prog, field.metadata.get("renamed_from"), field.name, given, origin)
    values, keys = current_names(dataclass_types, given), [field.name for field in fields]
    meant = set(keys) if mistakes else set[str]()
    for key in values:
        if key not in keys and not (ignore_others_in_file and origin[key] != _COMMAND_LINE):
            close = difflib.get_close_matches(key, keys, n=1)
            meant |= {*close}
            mistakes.append(f"{origin[key]}: unknown key {key!r}" + (f" (did you mean {close[0]!r}?)" if close else ""))
    file = next((source for source in origin.values() if source != _COMMAND_LINE), _COMMAND_LINE)

    def where(path: str) -> str:
        parents = (path.rsplit(".", count)[0] for count in range(path.count(".") + 1))
        return next((origin[parent] for parent in parents if parent in origin), file)

    def located(line: str) -> str:
        path = line.partition(": ")[0]
        return f"{where(path)}: {line}" if path.partition(".")[0] in keys else line

    parts = []
    for dtype in dataclass_types:
        names = {field.name for field in fields_of(dtype)}
        part, wrong = fill(dtype, {key: values[key] for key in values if key in names}, meant & names)
        parts.append(part)
        mistakes += [f"{where(path)}: {path}{': ' if path else ''}{text}" for path, text in wrong]
    refuse(mistakes)
    return tuple(parts), located


# ---- words to values


def _accept_former_name(
    prog: str, former: str | None, name: str, given: dict[str, Any], origin: dict[str, str]
) -> Iterator[str]:
    """Print a notice of a former name, unless a word overrides it; yield a line if one origin has both names."""
    if former in given and name in given and origin[former] != origin[name]:
        given.pop(former if origin[name] == _COMMAND_LINE else name)
    if former in given:
        if name in given:
            yield f"{origin[former]}: {former}: is the former name of {name}, which is given too"
        elif os.environ.get("RANK", "0") == "0":
            print(f"{prog}: {origin[former]}: {former}: is now called {name}", file=sys.stderr)
        origin[name] = origin[former]


def _read_words(argv: Sequence[str], positionals: Sequence[str]) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Read values and their origin (file or command line), by key, and the mistakes of single words."""
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
            key, text = match.groups() if match else (word[2:], str(value))
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
    for name in positionals[: len(free)]:
        several = name.endswith("...")
        count = max(1, len(free) - len(positionals) + 1) if several else 1
        overrides.append((name.removesuffix("..."), free[:count] if several else free[0]))
        free = free[count:]
    folder = {word: "a folder, " if Path(word).is_dir() else "" for word in free}
    mistakes += [f"{_COMMAND_LINE}: {x!r} is {folder[x]}neither a configuration file nor key=value" for x in free]
    for key, value in overrides:
        try:
            values = _put(values, key.split("."), value)
            origin.setdefault(key.partition(".")[0], _COMMAND_LINE)
            origin[key] = _COMMAND_LINE
        except LookupError as error:
            mistakes.append(f"{_COMMAND_LINE}: {key}: {error.args[0]}")
    return values, origin, mistakes


def _put(holder: Any, path: Sequence[str], value: Any, name: str = "") -> Any:
    """Return a copy of nested mappings and lists with one value set; LookupError if one of them does not exist."""
    if not path:
        return value
    key, *rest = path
    full_name = f"{name}.{key}" if name else key
    if isinstance(holder, list) and key.isdigit() and int(key) < len(holder):
        number = int(key)
        return [*holder[:number], _put(holder[number], rest, value, full_name), *holder[number + 1 :]]
    if isinstance(holder, dict) or (holder is None and not key.isdigit()):
        return (holder or {}) | {key: _put((holder or {}).get(key), rest, value, full_name)}
    what = "not there" if holder is None else f"a list of {len(holder)}" if isinstance(holder, list) else repr(holder)
    raise LookupError(f"there is no {key} in {name}, which is {what}")


def current_names(dataclass_types: Sequence[type], values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace former keys and their values by the present ones."""
    current = dict(values)
    for field in [field for dtype in dataclass_types for field in fields_of(dtype)]:
        if (former := field.metadata.get("renamed_from")) in current:
            value, pairs = current.pop(former), field.metadata.get("former_values", ())
            current.setdefault(field.name, next((new for old, new in pairs if old == value), value))
    return current


def peek_value(argv: Sequence[str], key: str) -> str | None:
    """Return the text that `argv` gives `key`, or None: for a key that decides which other keys there are."""
    value = _read_words([word for word in argv if word not in HELP], ())[0].get(key)
    return value if isinstance(value, str) else None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read the mapping in a YAML file; a ConfigError names the file if it is missing or holds anything else."""
    if not Path(path).is_file():
        raise ConfigError(f"{path}: no such file")
    values = _load_yaml(read_text(path), str(path))
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected 'key: value' lines")
    return {str(key): value for key, value in values.items()}


def read_text(path: str | Path) -> str:
    """Read a text file of the user's; a ConfigError names it if it is not UTF-8."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {one_line(error)}") from None


def _load_yaml(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not YAML: {one_line(error)}") from None


def _help(dataclass_types: Sequence[type], prog: str, description: str, positionals: Sequence[str]) -> str:
    """Format usage, then every key with its type, its default and its help."""
    places = "".join(f" {name.upper()}" for name in positionals)
    lines = [f"usage: {prog}{places} [CONFIG.yaml] [key=value ...]", "", description]
    for dtype in dataclass_types:
        lines += ["", f"{dtype.__name__}:"]
        for field in fields_of(dtype):
            state = "required" if (default := default_of(field)) is MISSING else f"default: {default}"
            about = " ".join(str(field.metadata.get("help", "")).replace("%%", "%").split())
            lines.append(f"  {field.name} ({state})\n      {about}")
    return "\n".join(lines)
