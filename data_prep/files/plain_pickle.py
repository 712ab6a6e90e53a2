"""Read downloaded pickles safely: only plain data is created from them.

A pickle is a program. It reaches Python's functions and classes only by name, through `find_class`, which knows only
sets here, so that there is nothing to call. Lists, dicts, tuples, texts, bytes and numbers need no name.

The unpickler is the one written in Python: the fast one allocates as many memos as the file claims, so that ten bytes
could take 64 GB.
"""

import pickle
import struct
from pathlib import Path
from typing import Any

from data_prep.common.errors import DataError, one_line

PLAIN = {"set": set, "frozenset": frozenset}
BUILTINS = {"builtins", "__builtin__"}  # in Python 3 and 2

# Errors that `pickle` raises on a damaged file, besides its own.
PICKLE_ERRORS = (
    pickle.UnpicklingError, OSError, EOFError, AttributeError, IndexError, KeyError, TypeError, ValueError,
    AssertionError, MemoryError, OverflowError, RecursionError,
    struct.error,
)  # fmt: skip


class _PlainUnpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> type:
        if module in BUILTINS and name in PLAIN:
            return PLAIN[name]
        raise pickle.UnpicklingError(f"refused: it asks for {module}.{name}, and only plain data is read")


def load_plain(path: str | Path, encoding: str = "latin1") -> Any:
    """Read the plain data of a pickle file; `encoding` is that of texts from Python 2.

    Raises:
        DataError: the pickle is damaged, or refers to a function or class.
    """
    try:
        with Path(path).open("rb") as file:
            return _PlainUnpickler(file, encoding=encoding).load()
    except PICKLE_ERRORS as error:
        raise DataError(f"{path}: pickle: {one_line(error)}") from None
