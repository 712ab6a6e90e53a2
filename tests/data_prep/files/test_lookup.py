"""Look-up tables: what goes in comes out, whoever builds them, however often they are stopped at it."""

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.common.errors import DataError
from data_prep.files.lookup import Index

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ITEMS = 40_000


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXT, VALUES), max_size=10), TEXT)
def test_the_first_of_two_items_with_one_key_is_found(tmp_path: Path, items: list[tuple[str, Any]], other: str) -> None:
    path = tmp_path / "index.sqlite"
    path.unlink(missing_ok=True)
    index = Index.build(path, items)
    expected = dict(reversed(items))
    for key in [*expected, other]:
        assert index.get(key) == expected.get(key)


def test_half_a_surrogate_pair_is_no_key(tmp_path: Path) -> None:
    index = Index.build(tmp_path / "index.sqlite", [("\ud800", 1), ("a", "\ud800")])
    assert index.get("\ud800") is None
    assert index.get("a") == "\ud800"


def test_what_is_there_is_not_built_again(tmp_path: Path) -> None:
    def never() -> Iterator[tuple[str, Any]]:
        raise AssertionError("asked for items")
        yield

    Index.build(tmp_path / "index.sqlite", [("a", 1)])
    assert Index.build(tmp_path / "index.sqlite", never()).get("a") == 1


def test_input_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, Any]]:
        yield from ((str(number), number) for number in range(1000))
        raise DataError("graphs.json: not JSON")

    with pytest.raises(DataError, match=r"graphs\.json"):
        Index.build(tmp_path / "tables" / "index.sqlite", broken())
    assert list((tmp_path / "tables").iterdir()) == []


def test_a_folder_that_cannot_be_written_and_a_damaged_table_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match=r"index\.sqlite: look-up table: "):
        Index.build(tmp_path / "file" / "index.sqlite", [])
    (tmp_path / "damaged.sqlite").write_bytes(b"no table" * 1000)
    with pytest.raises(DataError, match=r"damaged\.sqlite: look-up table: "):
        Index(tmp_path / "damaged.sqlite").get("a")


@pytest.mark.parametrize("name", ["a b?c#d%20é.sqlite", "plain.sqlite"])
def test_any_name_of_a_file_will_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Index.build(Path(name), [("a", 1)]).get("a") == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_open_table_goes_to_another_process(tmp_path: Path) -> None:
    index = Index.build(tmp_path / "index.sqlite", [("a", [1, 2])])
    assert index.get("a") == [1, 2]  # its connection is open now
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        assert pool.apply(index.get, ("a",)) == [1, 2]
    assert pickle.loads(pickle.dumps(index)).get("a") == [1, 2]


def _items() -> Iterator[tuple[str, Any]]:
    return ((str(number), [number] * 5) for number in range(ITEMS))


def _build(path: Path) -> None:
    index = Index.build(path, _items())
    assert index.get(str(ITEMS - 1)) == [ITEMS - 1] * 5


def test_a_builder_killed_on_the_way_leaves_no_table_and_the_next_one_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    context = multiprocessing.get_context("fork")
    builder = context.Process(target=_build, args=(path,))
    builder.start()
    while builder.is_alive() and not any(tmp_path.iterdir()):
        time.sleep(0.001)
    assert builder.pid is not None
    os.kill(builder.pid, signal.SIGKILL)
    builder.join()
    assert builder.exitcode == -signal.SIGKILL  # it was still at it
    assert not path.exists()
    _build(path)


def test_two_builders_at_once_both_find_everything(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite"
    context = multiprocessing.get_context("fork")
    builders = [context.Process(target=_build, args=(path,)) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert [builder.exitcode for builder in builders] == [0, 0]
    assert [found.name for found in tmp_path.iterdir()] == ["index.sqlite"]
