"""The grammar of the entry points: every wrong call is one line that names file and key."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

from data_prep.common.command_line import parse_config, peek_value
from data_prep.common.errors import ConfigError, DataError, RunError, user_errors


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
    assert refusal(str(wrong)) == f"{wrong}: count: invalid int value: 'many'"
    wrong.write_text("cuont: 3\n")
    assert refusal(str(wrong)) == f"{wrong}: unknown key 'cuont' (did you mean 'count'?)"
    wrong.write_text("count: [1, 2]\n")
    assert refusal(str(wrong)) == f"{wrong}: count: expected one value, got a list"
    wrong.write_text("- count\n")
    assert str(wrong) in refusal(str(wrong))
    wrong.write_text("count: [\n")
    assert refusal(str(wrong)).startswith(f"{wrong}: not YAML: ")
    wrong.write_text("rate: 2\n")
    assert refusal(str(wrong)) == f"{wrong}: the following arguments are required: count"
    assert refusal(config, "kind=c").startswith("command line: kind: invalid choice: 'c'")
    assert refusal(config, "flag=maybe").startswith("command line: flag: ")
    assert refusal(config, "rat=2").startswith("command line: unknown key 'rat'")  # not taken for `rate`
    assert refusal("nowhere.yaml") == "nowhere.yaml: no such file"
    assert "more than one" in refusal(config, config)


def test_a_file_may_serve_several_programs_but_the_command_line_may_not(tmp_path: Path) -> None:
    shared = tmp_path / "shared.yaml"
    shared.write_text("count: 3\nlearning_rate: 1.0\nlora: {r: 8}\n")
    options = {"prog": "prog", "description": "Does things.", "ignore_others_in_file": True}
    assert parse_config((Things,), [str(shared)], **options) == (Things(3),)
    with pytest.raises(ConfigError, match="command line: unknown key 'learning_rate'"):
        parse_config((Things,), [str(shared), "learning_rate=2"], **options)
    assert "unknown key 'learning_rate'" in refusal(str(shared))


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
