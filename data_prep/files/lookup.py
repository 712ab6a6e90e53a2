"""Look up on disk what belongs to a record but lies in another file: scene graphs, OCR, objects, regions.

Such a file can be larger than memory. It is streamed once into an SQLite file that every worker queries.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from data_prep.common.atomic import atomic_path
from data_prep.common.errors import DataError


class Index:
    """Map text keys to JSON values in the SQLite file `path`: read-only once built, and picklable."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_connection": None}  # a connection belongs to one process

    @classmethod
    def build(cls, path: Path, items: Iterable[tuple[str, Any]]) -> "Index":
        """Write `items` unless `path` exists; of two items with one key, the first is stored.

        The file appears whole or not at all, so that a killed run or several machines at once do no harm.

        Raises:
            DataError: the file cannot be written.
        """
        if not path.exists():
            with _errors_of(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with atomic_path(path) as partial:
                    partial.unlink(missing_ok=True)
                    with closing(sqlite3.connect(partial)) as connection:
                        connection.execute("PRAGMA journal_mode = OFF")
                        connection.execute("PRAGMA synchronous = OFF")
                        connection.execute("CREATE TABLE items (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
                        rows = ((key, json.dumps(value, separators=(",", ":"))) for key, value in items if is_text(key))
                        connection.executemany("INSERT OR IGNORE INTO items VALUES (?, ?)", rows)
                        connection.commit()
        return cls(path)

    def get(self, key: str) -> Any | None:
        """Return the value of `key`, or None."""
        if not is_text(key):  # `build` has skipped it
            return None
        with _errors_of(self.path):
            if self._connection is None:
                self._connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?immutable=1", uri=True)
            row = self._connection.execute("SELECT value FROM items WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])


def is_text(text: str) -> bool:
    """Check that UTF-8 can encode a text, which it cannot if JSON held half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RecursionError, sqlite3.Error) as error:
        raise DataError(f"{path}: look-up table: {error}") from None
