"""The errors a user is told in one line, and the line."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from crop_model.regions import RegionError


class DataError(ValueError):
    """Bad data or annotations; the message is one line that names file, record and reason."""


class RecordError(DataError):
    """A record or question that cannot be used, by a reason of one word and a message of one line."""

    def __init__(self, reason: str, message: str, image: str = "", question: str = "") -> None:
        super().__init__(message)
        self.reason, self.message, self.image, self.question = reason, message, image, question


class ConfigError(ValueError):
    """A wrong call or configuration: the message is one line that names the file (or `command line`) and the key."""


class RunError(RuntimeError):
    """A run that was called rightly and failed all the same: the message is one line."""


@contextmanager
def user_errors(prog: str) -> Iterator[None]:
    """Turn an error into one line on stderr and an exit status: 2 for a wrong call or data, 1 for a failed run or
    what the system refuses (a full disk), 130 for Ctrl-C, 141 without a line where nobody reads stdout any more."""
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        tqdm.write(f"{prog}: interrupted", file=sys.stderr)
        raise SystemExit(128 + signal.SIGINT) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else its last flush, at exit, complains
        raise SystemExit(128 + signal.SIGPIPE) from None
    except (ConfigError, DataError, RegionError, RunError, OSError) as error:
        text = str(error)
        if "Traceback (most recent call last)" in text:  # of a data loader's process, with the message at its end
            text = text.strip().splitlines()[-1].partition(": ")[2]
        tqdm.write(f"{prog}: error: {' '.join(text.split())}", file=sys.stderr)  # after progress bars are cleared
        raise SystemExit(1 if isinstance(error, RunError | OSError) else 2) from None
