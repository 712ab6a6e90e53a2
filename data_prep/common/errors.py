"""The errors that a user sees as one line, and the exit statuses that go with them."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from crop_model.regions import RegionError


class DataError(ValueError):
    """Report bad data or annotations: the message is one line that names file, record and reason."""


class RecordError(DataError):
    """Report a record or question that cannot be used, by a reason of one word and a message of one line."""

    def __init__(self, reason: str, message: str, image: str = "", question: str = "") -> None:
        super().__init__(message)
        self.reason, self.message, self.image, self.question = reason, message, image, question


class ConfigError(ValueError):
    """Report a wrong call or configuration: a line per mistake, which names the file (or `command line`) and key."""

    def __init__(self, *lines: str) -> None:
        super().__init__("\n".join(map(one_line, lines)))


class RunError(RuntimeError):
    """Report that a correctly called run failed: the message is one line."""


class ExportError(RunError):
    """Report that an export failed or computes something else than its checkpoint: the message is one line."""


def one_line(error: BaseException | str) -> str:
    """Return the message of an error, or a text, as one line; the error's class if it has no message."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def user_errors(prog: str) -> Iterator[None]:
    """Turn an error into one line on stderr and an exit status.

    The status is 2 for a wrong call or bad data, 1 for a failed run or an error of the system (a full disk), 130 for
    Ctrl-C, and 141, without a line, if the reader of stdout has gone.
    """
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
        if "Traceback (most recent call last)" in text:  # from a data loader's worker, with the message at its end
            text = text.strip().splitlines()[-1].partition(": ")[2]
        for line in text.splitlines() if isinstance(error, ConfigError) else [one_line(text)]:
            tqdm.write(f"{prog}: error: {line}", file=sys.stderr)  # after progress bars are cleared
        raise SystemExit(1 if isinstance(error, RunError | OSError) else 2) from None
