"""Pickles as plain data: what is plain comes back, anything else is refused, and nothing is executed."""

import builtins
import collections
import os
import pickle
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.common.errors import DataError
from data_prep.files.plain_pickle import load_plain

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
plain = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(texts, inner) | st.frozensets(leaves),
    max_leaves=10,
)


def saved(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "refs.p"
    path.write_bytes(content)
    return path


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=plain, protocol=st.sampled_from(PROTOCOLS))
def test_plain_data_comes_back(tmp_path, value, protocol) -> None:
    assert load_plain(saved(tmp_path, pickle.dumps(value, protocol))) == value


def test_texts_of_python_2_are_latin1(tmp_path) -> None:
    assert load_plain(saved(tmp_path, b"(lp0\nS'caf\\xe9'\np1\na.")) == ["café"]


class Reduced:
    """Calls something when it is unpickled."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("place", ["bare", "list", "key", "set", "argument", "state"])
def test_a_call_is_refused_wherever_it_stands(tmp_path, protocol, place) -> None:
    proof = tmp_path / "executed"
    call = Reduced(os.system, f"touch {proof}")
    value = {
        "bare": lambda: call,
        "list": lambda: [[{"a": (1, call)}]],
        "key": lambda: {call: 1},
        "set": lambda: {call},
        "argument": lambda: Reduced(len, [call]),
        "state": lambda: collections.OrderedDict(a=call),
    }[place]()
    with pytest.raises(DataError, match="refused: it asks for"):
        load_plain(saved(tmp_path, pickle.dumps(value, protocol)))
    assert not proof.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "function", [eval, exec, builtins.open, getattr, __import__, subprocess.Popen, print, Path, complex, bytearray]
)
def test_no_function_or_class_is_reached(tmp_path, protocol, function) -> None:
    with pytest.raises(DataError, match="refused"):
        load_plain(saved(tmp_path, pickle.dumps(function, protocol)))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no pickle",
        b"cos\nsystem\n(S'true'\ntR.",  # written by hand
        b"(S'true'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'true'\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",  # STACK_GLOBAL
        b"\x80\x04\x8c\x08builtins\x8c\x0fset.__class__\x93.",  # the way to a class by a dotted name
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02Pname\n.",  # PERSID
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"\x80\x02c__builtin__\nset\n)R}S'a'\nK\x01sb.",  # BUILD on a set
        b"\x80\x02c__builtin__\nset\n]]a\x85R.",  # a set of lists
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a frame longer than any memory
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes longer than any memory
        b"\x80\x02](",
        b"\x80\xff.",
        b"I123abc\n.",
    ],
)
def test_damaged_and_crafted_pickles_are_data_errors(tmp_path, content) -> None:
    with pytest.raises(DataError, match=r"refs\.p: pickle: "):
        load_plain(saved(tmp_path, content))


def test_memos_take_no_more_room_than_they_need(tmp_path) -> None:
    assert load_plain(saved(tmp_path, b"\x80\x02]r\xff\xff\xff\xff.")) == []  # numbered 4294967295


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_mutated_pickles_raise_data_errors_only(tmp_path, data) -> None:
    content = bytearray(
        pickle.dumps([{"ann_id": 1, "sentences": [{"sent": "a"}, (1.5, None)]}], data.draw(st.sampled_from(PROTOCOLS)))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
            st.sampled_from(b"(.)]}0123aRcbioaestu\x80\x8c\x93\x94")
        )
    with suppress(DataError):
        load_plain(saved(tmp_path, bytes(content)))
