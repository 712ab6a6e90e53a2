"""Uploads a folder that lies ready: an export, or a data set of region sidecars.

    python -m data_prep.push FOLDER owner/name [revision=BRANCH] [tag=TAG] [dry_run=true] [private=false]

`train.export` and `data_prep.publish` upload what they made themselves; this goes on where their upload broke off.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.common.command_line import parse_config
from data_prep.common.errors import ConfigError, user_errors
from data_prep.hub.upload import EXPORT, REGIONS, HubFolderKind, PushArguments, push_folder

PROG = "python -m data_prep.push"


@dataclass
class FolderArguments(PushArguments):
    """What to upload, and whereto."""

    folder: str = field(metadata={"help": "Folder that train.export or data_prep.publish wrote."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.push_to is None:
            raise ConfigError("push_to: missing")


def folder_kind(folder: Path) -> HubFolderKind:
    """ConfigError where a folder is neither."""
    for kind in (EXPORT, REGIONS):
        if any(folder.glob(kind.mark)):
            return kind
    raise ConfigError(f"folder: {folder} is neither an {EXPORT.called} nor a {REGIONS.called}")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 2 for a wrong call, 1 where the Hub refused."""
    with user_errors(PROG):
        (arguments,) = parse_config(
            (FolderArguments,),
            sys.argv[1:] if argv is None else argv,
            prog=PROG,
            description="Upload an export, or a data set of region sidecars, to the Hub.",
            positionals=("folder", "push_to"),
        )
        folder = Path(arguments.folder)
        push_folder(folder, arguments, folder_kind(folder))


if __name__ == "__main__":
    main()
