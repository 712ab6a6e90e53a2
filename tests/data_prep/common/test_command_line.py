"""The grammar of the entry points: every wrong call is one line that names file and key."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from data_prep.common.command_line import command, parse_config, peek_value
from data_prep.common.errors import ConfigError, DataError, RunError, user_errors
from data_prep.common.fill import Checked


@dataclass
class Things:
    """Keys of every kind that the grammar knows."""

    count: int = field(metadata={"help": "A number of things."})
    rate: float = 0.5
    flag: bool = False
    name: str | None = "x"
    sizes: list[int] | None = field(default_factory=lambda: [8, 8])
    kind: str = field(default="a", metadata={"choices": ("a", "b")})


def parse(*words: str, types: tuple[type, ...] = (Things,), positionals: tuple[str, ...] = ()):
    return parse_config(types, words, prog="prog", description="Does things.", positionals=positionals)


def refusal(*words: str, types: tuple[type, ...] = (Things,)) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(*words, types=types)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "things.yaml"
    path.write_text("count: 3\nrate: 1e-4\nflag: true\nsizes: [4, 6]\n")
    return str(path)


def test_file_and_overrides(config: str) -> None:
    assert parse(config) == (Things(3, 1e-4, True, "x", [4, 6]),)
    assert parse(config, "count=5", "flag=false", "sizes=[1, 2]", "name=a=b") == (
        Things(5, 1e-4, False, "a=b", [1, 2]),
    )
    assert parse("count=5") == (Things(5),)
    assert parse("count=5", "name=no", "flag=yes") == (Things(5, flag=True, name="no"),)
    assert parse("count=5", "name=falsehood") == (Things(5, name="falsehood"),)


def test_null_and_empty_list(config: str) -> None:
    assert parse(config, "name=null", "sizes=null") == (Things(3, 1e-4, True, None, None),)
    assert parse(config, "sizes=[]")[0].sizes == []
    assert "count: may not be null" in refusal(config, "count=null")


def test_positionals_and_the_launchers_word(config: str) -> None:
    (things,) = parse("--local_rank=1", "7", "what", config, positionals=("count", "name"))
    assert (things.count, things.name, things.rate) == (7, "what", 1e-4)
    assert "neither a configuration file nor key=value" in refusal("7")


def test_refusals_name_file_and_key(config: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("count: many\n")
    assert refusal(str(wrong)) == f"{wrong}: count: expected a whole number, got 'many'"
    wrong.write_text("cuont: 3\n")
    assert refusal(str(wrong)) == f"{wrong}: unknown key 'cuont' (did you mean 'count'?)"
    wrong.write_text("count: [1, 2]\n")
    assert refusal(str(wrong)) == f"{wrong}: count: expected one value, got a list"
    wrong.write_text("- count\n")
    assert str(wrong) in refusal(str(wrong))
    wrong.write_text("count: [\n")
    assert refusal(str(wrong)).startswith(f"{wrong}: not YAML: ")
    wrong.write_text("rate: 2\n")
    assert refusal(str(wrong)) == f"{wrong}: count: is required"
    assert refusal(config, "kind=c") == "command line: kind: expected 'a' or 'b', got 'c'"
    assert refusal(config, "flag=maybe").startswith("command line: flag: ")
    assert refusal(config, "rat=2").startswith("command line: unknown key 'rat'")  # not taken for `rate`
    assert refusal("nowhere.yaml") == "nowhere.yaml: no such file"
    assert "more than one" in refusal(config, config)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_bytes(b"count: \xff\xfe\n")
    assert refusal(str(wrong)).startswith(f"{wrong}: not UTF-8: ")
    wrong.write_text("count: 3\nname: a\ncount: 4\n")
    assert refusal(str(wrong)) == f"{wrong}: not YAML: line 3: count is given twice"
    wrong.write_text("count: 3\nnested: {r: 1, r: 2}\n")
    assert refusal(str(wrong)) == f"{wrong}: not YAML: line 2: r is given twice"
    message = f"command line: '{tmp_path}' is a folder, neither a configuration file nor key=value"
    assert refusal("count=3", str(tmp_path)) == message


def test_a_file_may_serve_several_programs_but_the_command_line_may_not(tmp_path: Path) -> None:
    shared = tmp_path / "shared.yaml"
    shared.write_text("count: 3\nlearning_rate: 1.0\nlora: {r: 8}\n")
    options = {"prog": "prog", "description": "Does things.", "ignore_others_in_file": True}
    assert parse_config((Things,), [str(shared)], **options) == (Things(3),)
    with pytest.raises(ConfigError, match="command line: unknown key 'learning_rate'"):
        parse_config((Things,), [str(shared), "learning_rate=2"], **options)
    with pytest.raises(ConfigError, match=f"{shared}: unknown key 'learning_rate'\n{shared}: unknown key 'lora'"):
        parse(str(shared))


def refuse(rows: list) -> None:
    raise DataError("a.json: record 3: no answer")


def test_user_errors_are_one_line_and_status_2(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught, user_errors("python -m train.plc"):
        raise DataError("a.json: record 3:\n  no answer")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "python -m train.plc: error: a.json: record 3: no answer\n"
    with pytest.raises(SystemExit), user_errors("prog"):
        list(DataLoader([1], collate_fn=refuse, num_workers=1))
    assert capsys.readouterr().err == "prog: error: a.json: record 3: no answer\n"
    with pytest.raises(SystemExit) as caught, user_errors("prog"):
        raise RunError("loss is nan\nafter step 3")
    assert caught.value.code == 1
    assert capsys.readouterr().err == "prog: error: loss is nan after step 3\n"
    with pytest.raises(ZeroDivisionError), user_errors("prog"):
        print(1 / 0, file=sys.stderr)


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device", "out/part-00000.parquet"),
        NotADirectoryError(20, "Not a directory", "a.json/regions"),
    ],
)
def test_what_the_system_refuses_is_one_line_and_status_1(error: OSError, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught, user_errors("prog"):
        raise error
    assert caught.value.code == 1
    assert capsys.readouterr().err == f"prog: error: {error}\n"


def test_ctrl_c_is_one_line_and_status_130(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught, user_errors("prog"):
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert capsys.readouterr().err == "prog: interrupted\n"


@pytest.mark.integration
def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """`prog | head`: the line stays in stdout's buffer until the end, and can be written to nobody then."""
    code = "from data_prep.common.errors import user_errors\nwith user_errors('prog'):\n    print('line')"
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (141, "")


def test_peek_value_gives_texts_only(config: str) -> None:
    assert peek_value(["--help", config, "name=gqa"], "name") == "gqa"
    for words in (["name=[gqa]"], ["name={a: b}"], ["name=3"], ["name=null"], [config]):
        assert peek_value(words, "name") is None
    assert refusal("count=1", "name=[gqa]") == "command line: name: expected one value, got a list"


# ---- every mistake at once


@dataclass(frozen=True)
class Item(Checked):
    """A nested mapping."""

    path: str
    weight: float = 1.0

    def mistakes(self) -> Iterator[str]:
        if self.weight <= 0:
            yield f"weight: expected a number above 0, got {self.weight}"


@dataclass
class Holder(Checked):
    """Keys that hold mappings and lists, and keys that have to fit each other."""

    items: list[Item] = field(default_factory=list)
    options: dict[str, Any] | None = None
    low: int = 0
    high: int = 9
    many: int | list[int | None] = 0
    current: bool = field(default=False, metadata={"renamed_from": "former", "former_values": (("on", True),)})

    def mistakes(self) -> Iterator[str]:
        if self.low > self.high:
            yield f"low: {self.low} is above high"
        if self.high > 99:
            yield f"high: {self.high} is above 99"


@dataclass
class Other(Checked):
    """A second dataclass."""

    limit: int = 1

    def mistakes(self) -> Iterator[str]:
        if self.limit < 1:
            yield "limit: must be at least 1"


def lines(*words: str) -> list[str]:
    """The lines that a wrong call gets on stderr."""
    with pytest.raises(ConfigError) as caught:
        parse(*words, types=(Holder, Other))
    return str(caught.value).splitlines()


def test_three_mistakes_in_a_file_are_three_lines_with_status_2(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("itemz: []\nlow: few\noptions: 3\n")

    @command("prog", Holder, Other)
    def main(holder: Holder, other: Other) -> None:
        """Do nothing."""

    with pytest.raises(SystemExit) as caught:
        main([str(path), "limit=0"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        f"python -m prog: error: {path}: unknown key 'itemz' (did you mean 'items'?)",
        f"python -m prog: error: {path}: options: expected a mapping, got 3",
        f"python -m prog: error: {path}: low: expected a whole number, got 'few'",
        "python -m prog: error: command line: limit: must be at least 1",
    ]


def test_every_check_of_a_dataclass_is_reported() -> None:
    assert lines("low=200", "high=100") == [
        "command line: low: 200 is above high",
        "command line: high: 100 is above 99",
    ]


@dataclass
class Span(Checked):
    """A required key, and a check that reads two keys after one that reads one."""

    name: str
    first: int = 1
    last: int = 1

    def mistakes(self) -> Iterator[str]:
        if self.last < 0:
            yield "last: is below 0"
        if self.first > self.last:
            yield "first: is above last"
        if self.name == "x":
            yield "name: is x"


def test_checks_of_valid_keys_are_reported_beside_wrong_ones() -> None:
    """A check that reads a wrong or missing key reports nothing, and those after it are left out."""

    def said(*words: str) -> set[str]:
        with pytest.raises(ConfigError) as caught:
            parse(*words, types=(Span,))
        return {line.removeprefix("command line: ") for line in str(caught.value).splitlines()}

    wrong_first = "first: expected a whole number, got 'a'"
    assert said("name=x", "first=a", "last=-1") == {wrong_first, "last: is below 0"}
    assert said("name=x", "first=a", "last=1") == {wrong_first}
    assert said("last=-1") == {"name: is required", "last: is below 0", "first: is above last"}
    assert said("name=[]", "first=2") == {"name: expected one value, got a list", "first: is above last"}


def test_what_a_run_refuses_by_key_has_its_origin(config: str, capsys: pytest.CaptureFixture) -> None:
    @command("door", Things)
    def main(things: Things) -> None:
        raise ConfigError("count: too low", "rate: too high", "kind: not set", "model folder: empty")

    with pytest.raises(SystemExit) as caught:
        main([config, "rate=2"])
    assert caught.value.code == 2
    expected = [f"{config}: count: too low", "command line: rate: too high", f"{config}: kind: not set"]
    lines = [f"python -m door: error: {line}" for line in [*expected, "model folder: empty"]]
    assert capsys.readouterr().err.splitlines() == lines


def test_nested_mistakes_have_their_path(tmp_path: Path) -> None:
    path = tmp_path / "nested.yaml"
    path.write_text("items:\n- {path: a, weight: 0}\n- {path: b, wieght: 2}\n- {weight: heavy}\n- 7\n")
    assert lines(str(path)) == [
        f"{path}: items.0.weight: expected a number above 0, got 0.0",
        f"{path}: items.1.wieght: unknown key (did you mean 'weight'?)",
        f"{path}: items.2.path: is required",
        f"{path}: items.2.weight: expected a number, got 'heavy'",
        f"{path}: items.3: expected a mapping, got 7",
    ]
    path.write_text("items:\n- {path: a, wieght: 2, weight: -1}\n")
    assert lines(str(path)) == [
        f"{path}: items.0.wieght: unknown key (did you mean 'weight'?)",
        f"{path}: items.0.weight: expected a number above 0, got -1.0",
    ]
    assert lines(str(path), "items=[{path: a, weight: 0}]")[0].startswith("command line: items.0.weight: ")


def test_nested_keys_are_set_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "nested.yaml"
    path.write_text("items:\n- {path: a}\n- {path: b}\noptions: null\n")
    words = ["options.r=64", "options.deep.er=[1, 2]", "items.1.weight=0.5", "--items.0.path", "c"]
    (holder,) = parse(str(path), *words, types=(Holder,))
    assert holder.options == {"r": 64, "deep": {"er": [1, 2]}}
    assert holder.items == [Item("c"), Item("b", 0.5)]
    assert lines(str(path), "items.2.weight=1", "low.x=3", "options.0.r=4") == [
        "command line: items.2.weight: there is no 2 in items, which is a list of 2",
        "command line: options.0.r: there is no 0 in options, which is not there",
        "command line: low: expected a whole number, got {'x': 3}",
    ]
    assert lines("items.0.weight=1") == ["command line: items.0.weight: there is no 0 in items, which is not there"]
    assert lines("low=3", "low.x=1") == ["command line: low.x: there is no x in low, which is 3"]


def test_former_names_are_taken_with_a_notice(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "old.yaml"
    path.write_text("former: on\n")
    assert parse(str(path), types=(Holder,))[0].current is True
    assert capsys.readouterr().err == f"prog: {path}: former: is now called current\n"
    assert parse("former=false", types=(Holder,))[0].current is False
    both = "former: is the former name of current, which is given too"
    assert lines("former=on", "current=true") == [f"command line: {both}"]
    path.write_text("former: on\ncurrent: true\n")
    assert lines(str(path)) == [f"{path}: {both}"]
    assert lines("former=maybe") == ["command line: current: expected true or false, got 'maybe'"]


@pytest.mark.parametrize("in_file", ["former: on", "current: true"])
def test_a_word_overrides_the_file_under_either_name(
    in_file: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A notice comes only if the former name is the one that counts."""
    path = tmp_path / "file.yaml"
    path.write_text(in_file + "\n")
    other = "current" if "former" in in_file else "former"
    assert parse(str(path), f"{other}=false", types=(Holder,))[0].current is False
    assert ("is now called" in capsys.readouterr().err) is (other == "former")


def test_a_union_is_one_mistake() -> None:
    assert lines("many=x") == ["command line: many: expected a whole number or a list, got 'x'"]
    assert lines("many=[1, null, x]") == ["command line: many.2: expected a whole number, got 'x'"]


def test_booleans_are_no_numbers_and_dates_are_texts() -> None:
    assert lines("low=true") == ["command line: low: expected a number, got true"]
    assert parse("count=1", "name=2026-11-28")[0].name == "2026-11-28"
    assert parse("count=1", "name=7")[0].name == "7"


def test_the_first_positional_takes_many_words() -> None:
    (things,) = parse("1", "2", "3", positionals=("sizes...", "count"))
    assert (things.sizes, things.count) == ([1, 2], 3)
    with pytest.raises(ConfigError, match="count: is required"):
        parse("1", positionals=("sizes...", "count"))
