"""Look-up tables on disk for what belongs to a record but lies in another file: scene graphs, OCR, objects, regions.

Such a file can be larger than memory. It is streamed once into an SQLite file, and every worker asks that.
"""

import json
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class Index:
    """Text keys to JSON values, read-only once built; may be sent to another process.

    Args:
        path: of the SQLite file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_connection": None}  # a connection belongs to one process

    @classmethod
    def build(cls, path: Path, items: Iterable[tuple[str, Any]]) -> "Index":
        """Writes `items` unless `path` is there already; the first of two items with one key stays.

        The file appears whole or not at all, so that a killed run and several machines at once do no harm.
        """
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")
            partial.unlink(missing_ok=True)
            connection = sqlite3.connect(partial)
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("CREATE TABLE items (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
            connection.executemany(
                "INSERT OR IGNORE INTO items VALUES (?, ?)",
                ((key, json.dumps(value, separators=(",", ":"))) for key, value in items),
            )
            connection.commit()
            connection.close()
            partial.replace(path)
        return cls(path)

    def get(self, key: str) -> Any | None:
        """The value of `key`, or None."""
        if self._connection is None:
            self._connection = sqlite3.connect(f"file:{self.path}?immutable=1", uri=True)
        row = self._connection.execute("SELECT value FROM items WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])
