"""Upload a finished folder: an export, or a data set of region sidecars.

    python -m data_prep.push FOLDER owner/name [revision=BRANCH] [tag=TAG] [dry_run=true] [private=false]

`train.export` and `data_prep.publish` upload their own folders; this command resumes an upload that was interrupted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.common.command_line import command
from data_prep.common.errors import ConfigError
from data_prep.hub.upload import EXPORT, REGIONS, HubFolderKind, PushArguments, push_folder


@dataclass
class FolderArguments(PushArguments):
    """Choose what to upload, and where to."""

    folder: str = field(metadata={"help": "The folder that train.export or data_prep.publish wrote."})

    def mistakes(self) -> Iterator[str]:
        yield from super().mistakes()
        if self.push_to is None:
            yield "push_to: missing"


def folder_kind(folder: Path) -> HubFolderKind:
    """Return the kind of a folder; ConfigError if it is neither."""
    for kind in (EXPORT, REGIONS):
        if any(folder.glob(kind.mark)):
            return kind
    raise ConfigError(f"folder: {folder} is neither an {EXPORT.called} nor a {REGIONS.called}")


@command("data_prep.push", FolderArguments, positionals=("folder", "push_to"))
def main(arguments: FolderArguments) -> None:
    """Upload an export, or a data set of region sidecars, to the Hub."""
    folder = Path(arguments.folder)
    push_folder(folder, arguments, folder_kind(folder))


if __name__ == "__main__":
    main()
