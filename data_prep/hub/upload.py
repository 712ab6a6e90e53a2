"""Upload a folder to the Hub in one commit that contains only what the repository lacks.

    look      check that the repository is absent or ours, and read the size and hash of each of its files
    compare   find the files that it lacks, and those of an earlier upload that the folder no longer has
    push      create repository and branch if necessary, send large files, commit, tag

Every step can be repeated: after a broken connection all are. The Hub's store reports a large file that arrived whole,
so that it is not sent twice, in this call or the next. The login is that of `hf auth login`. `HfApi.upload_folder` is
not used because it cannot list what it would send, and asks the Hub to prepare an upload even if nothing has changed.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from hashlib import sha1
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import logging as hub_logging
from huggingface_hub.utils import validate_repo_id

from data_prep.common.errors import RunError
from data_prep.common.fill import Checked, key

TRIES, WAIT_S = 4, 2.0  # waits of 2, 4 and 8 s, besides those of huggingface_hub for a single request
OF_A_NEW_REPOSITORY = {".gitattributes", "README.md"}
REASONS = {
    401: "the Hub does not accept this login; see `hf auth login`",
    403: "this login may not write there: the name is somebody else's, or the token only reads",
    404: "not found, or not for this login: the name may be somebody else's",
    409: "the name is taken",
}
T = TypeVar("T")


@dataclass(kw_only=True)
class PushArguments(Checked):
    """Choose whether and where to upload a folder."""

    push_to: str | None = key(None, "The Hub repository, owner/name, to upload to, with the login of `hf auth`.")
    private: bool = key(True, "Make the repository private if push_to creates it.")
    revision: str | None = key(None, "The branch to upload to, made from main if it does not exist; null: main.")
    tag: str | None = key(None, "The tag to set on the upload; it is never moved.")
    dry_run: bool = key(False, "List what push_to would send, with sizes, and send nothing.")

    def mistakes(self) -> Iterator[str]:
        if self.push_to is None:
            names = ("revision", "tag", "dry_run")
            yield from (f"{name}: has no effect without push_to" for name in names if getattr(self, name))
            return
        try:
            validate_repo_id(self.push_to)
        except HFValidationError as error:
            yield f"push_to: {error}"
        if "/" not in self.push_to:
            yield f"push_to: expected owner/name, got {self.push_to!r}"


@dataclass(frozen=True)
class HubFolderKind:
    """Describe a kind of folder to the Hub."""

    repo_type: str  # model or dataset
    called: str  # name of the kind in messages
    mark: str  # pattern of a file that every such folder has, and no other
    own: tuple[str, ...]  # files to delete once the folder no longer has them: old weights would still be loaded
    message: str  # message of the commit


EXPORT = HubFolderKind(
    "model",
    "export of this project",
    "modeling_crop_*.py",
    ("*.safetensors", "*.safetensors.index.json", "*.py", "adapter/*", ".eval_results/*"),
    "Export of a CROP PLC checkpoint",
)
REGIONS = HubFolderKind(
    "dataset",
    "data set of region sidecars",
    "regions/*/manifest.json",
    ("regions/*", "samples/*"),
    "Contextual regions",
)


@dataclass(frozen=True)
class Difference:
    """Hold the files that the repository lacks, those that it has, and those to delete."""

    send: list[CommitOperationAdd]
    there: list[CommitOperationAdd]
    stale: list[str]

    def listing(self) -> str:
        """List one file per line: bytes, name, and what happens to it."""
        rows = [(f"{file.upload_info.size:,}", file.path_in_repo, "send") for file in self.send]
        rows += [(f"{file.upload_info.size:,}", file.path_in_repo, "there already") for file in self.there]
        rows += [("", name, "delete") for name in self.stale]
        return "\n".join(f"{size:>16}  {name}  ({what})" for size, name, what in sorted(rows, key=lambda row: row[1]))

    def __str__(self) -> str:
        size = sum(file.upload_info.size for file in self.send)
        return f"{len(self.send)} files, {size:,} bytes to send; {len(self.there)} there; {len(self.stale)} to delete"


def check_push(arguments: PushArguments, kind: HubFolderKind) -> None:
    """Check, before the work, that there is a login and that the name is free or ours.

    Raises:
        RunError: there is no login, the name is taken, or the Hub does not answer.
    """
    if arguments.push_to is not None:
        push = _Push(arguments, kind)
        push.run(push.look)


def push_folder(folder: Path, arguments: PushArguments, kind: HubFolderKind) -> None:
    """Upload the folder, or list what an upload would send.

    Raises:
        RunError: no login, a name or tag that is taken, or the Hub refused or did not answer, in one line without the
            token. The folder is not changed.
    """
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    files = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in paths]
    push = _Push(arguments, kind)
    push.run(lambda: push.push(files))


class _Push:
    """Run the steps for one repository with the login, retries and one line of error."""

    def __init__(self, arguments: PushArguments, kind: HubFolderKind) -> None:
        self.arguments, self.kind = arguments, kind
        self.where: Any = {"repo_id": arguments.push_to, "repo_type": kind.repo_type}
        self.api = HfApi()

    def run(self, steps: Callable[[], Any]) -> None:
        token = get_token()
        if token is None:
            raise RunError(f"push_to {self.arguments.push_to}: not logged in to the Hub; see `hf auth login`")
        hub_logging.set_verbosity_error()  # its warnings contain signed addresses
        try:
            retried(steps)
        except (HTTPError, OSError, RuntimeError, ValueError) as error:
            # the token is removed: a server may echo what it was sent
            reason = error_line(error).replace(token, "***")
            raise RunError(f"push_to {self.arguments.push_to}: {reason}") from None

    def look(self) -> Any:
        """Return the repository with its files, or None; RunError if it is something else."""
        for branch in (self.arguments.revision, None):  # a branch that does not exist will be created from main
            try:
                info = self.api.repo_info(**self.where, revision=branch, files_metadata=True)
                break
            except RepositoryNotFoundError:
                return None
            except RevisionNotFoundError:
                if branch is None:
                    raise
        names = {file.rfilename for file in info.siblings}
        if not names <= OF_A_NEW_REPOSITORY and not any(fnmatch(name, self.kind.mark) for name in names):
            raise RunError(f"the name is taken, by something that is no {self.kind.called}; choose another")
        return info

    def push(self, files: Sequence[CommitOperationAdd]) -> None:
        """Upload the files, or list what an upload would send."""
        arguments, info = self.arguments, self.look()
        difference = self.compare(files, info)
        # an existing repository keeps its own visibility, whatever `private` is
        visibility = "private" if (arguments.private if info is None else info.private) else "public"
        summary = f"{arguments.push_to} ({'new, ' if info is None else ''}{visibility}): {difference}"
        if arguments.dry_run:
            print(difference.listing())
            print(f"{summary}; dry_run: nothing was sent")
            return
        print(summary)
        if info is None:
            self.api.create_repo(**self.where, private=arguments.private, exist_ok=True)
        if arguments.revision is not None:
            self.api.create_branch(**self.where, branch=arguments.revision, exist_ok=True)
        if operations := [*difference.send, *map(CommitOperationDelete, difference.stale)]:
            options = {"commit_message": self.kind.message, "revision": arguments.revision}
            commit = self.api.create_commit(**self.where, operations=operations, **options).oid
        else:
            commit = info.sha
        if arguments.tag is not None:
            self.api.create_tag(**self.where, tag=arguments.tag, revision=commit, exist_ok=True)
        print(f"uploaded: {arguments.push_to} at {commit}")

    def compare(self, files: Sequence[CommitOperationAdd], info: Any) -> Difference:
        """Compare with the repository; RunError if there is something to send and the tag is on another commit."""
        remote = {} if info is None else {file.rfilename: file for file in info.siblings}
        there = [file for file in files if _same(file, remote.get(file.path_in_repo))]
        others = sorted(remote.keys() - {file.path_in_repo for file in files})
        difference = Difference(
            send=[file for file in files if file not in there],
            there=there,
            stale=[name for name in others if any(fnmatch(name, pattern) for pattern in self.kind.own)],
        )
        tag = self.arguments.tag
        for ref in self.api.list_repo_refs(**self.where).tags if tag is not None and info is not None else []:
            if ref.name == tag and (difference.send or difference.stale or ref.target_commit != info.sha):
                raise RunError(f"tag {tag} is taken, by commit {ref.target_commit[:8]}; choose another")
        return difference


def _same(file: CommitOperationAdd, remote: Any) -> bool:
    """Check that a file of the repository has this content, by SHA-256 for a large file, else by git's hash."""
    if remote is None or remote.size != file.upload_info.size:
        return False
    if remote.lfs is not None:
        return remote.lfs.sha256 == file.upload_info.sha256.hex()
    content = Path(file.path_or_fileobj).read_bytes()
    return remote.blob_id == sha1(b"blob %d\0" % len(content) + content).hexdigest()


def retried(call: Callable[[], T]) -> T:
    """Call again after a pause if the connection broke or the Hub failed (5xx)."""
    for attempt in range(1, TRIES):
        try:
            return call()
        except (HTTPError, RuntimeError) as error:
            cause = _cause(error)
            status = cause.response.status_code if isinstance(cause, HfHubHTTPError) else 500
            if status < 500 or not isinstance(cause, HTTPError):
                raise
            pause = WAIT_S * 2 ** (attempt - 1)
            print(f"the Hub did not answer; try {attempt + 1} of {TRIES} in {pause:g} s", file=sys.stderr)
            time.sleep(pause)
    return call()


def _cause(error: BaseException) -> BaseException:
    """Return the error that stopped a large file, which huggingface_hub wraps in a RuntimeError."""
    return error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error


def error_line(error: BaseException) -> str:
    """Describe an error in one line: what an HTTP status means here, and the Hub's message."""
    cause = _cause(error)
    if isinstance(cause, HfHubHTTPError):
        status = cause.response.status_code
        message = " ".join((cause.server_message or "").split())
        return f"{REASONS.get(status, 'the Hub failed')} (status {status}{': ' if message else ''}{message})"
    if isinstance(cause, HTTPError):
        return f"no connection to the Hub: {type(cause).__name__}: {cause}; call again to resume"
    return next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__).strip()
