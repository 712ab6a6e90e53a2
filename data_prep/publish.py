"""Make a data set for the Hub from region sidecars: a folder that `datasets` loads, with its card.

    python -m data_prep.publish OUT regions=[regions/gqa, regions/textvqa] [push_to=owner/name] [key=value ...]

    OUT/  README.md            the card: columns, counts, licences, how to load and to train
          regions/<source>/    the sidecar: part-*.parquet, manifest.json       load_dataset(OUT, "<source>")
          samples/<source>/    its questions and answers, if it has any         load_dataset(OUT, "<source>-samples")

Neither images nor `rejected.jsonl` are published, and paths in the manifest are reduced to the names of files. Parts
are linked if the file system allows it, else copied. The folder appears whole or not at all.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.common.command_line import command
from data_prep.common.errors import DataError
from data_prep.common.fill import key
from data_prep.hub.dataset_card import Manifest, card_manifest, write_card
from data_prep.hub.upload import REGIONS, PushArguments, check_push, push_folder
from data_prep.schema.data_source import existing_paths
from data_prep.schema.sample import MANIFEST
from data_prep.work.shards import SAMPLES

from .sources import SOURCES

FILE_KEYS = ("image_root", "exclude_images")  # keys of every source that name files


@dataclass
class PublishArguments(PushArguments):
    """Choose what to publish, and where to."""

    out: str = field(metadata={"help": "The folder to write; it must not exist."})
    regions: list[str] = field(metadata={"help": "The region sidecars, by path or glob."})
    license: str = key("other", "The licence of the whole, as the Hub writes it; see the card's table.")
    title: str | None = key(None, "The name on the card; null: the name of the repository or folder.")

    def mistakes(self) -> Iterator[str]:
        yield from super().mistakes()
        for pattern in self.regions:
            if not existing_paths(pattern):
                yield f"regions: no such folder: {pattern}"
        if Path(self.out).exists():
            yield f"out: {self.out} exists; remove it or choose another"


def _sidecars(folders: Sequence[Path]) -> dict[Path, Manifest]:
    sidecars = {folder: card_manifest(folder) for folder in folders}
    seen: dict[str, Path] = {}
    for folder, manifest in sidecars.items():
        if manifest.source in seen:
            raise DataError(f"{folder}: source {manifest.source!r} is {seen[manifest.source]}'s already; see name=")
        seen[manifest.source] = folder
    return sidecars


def _link_parts(source: Path, target: Path) -> None:
    """Link or copy the parquet parts of a folder, which need not exist."""
    for part in sorted(source.glob("part-*.parquet")):
        target.mkdir(parents=True, exist_ok=True)
        try:
            os.link(part, target / part.name)
        except OSError:  # another file system, or one without links
            shutil.copyfile(part, target / part.name)


def published_manifest(folder: Path) -> str:
    """Return the text of a sidecar's manifest, without the folders of the machine that made it."""
    manifest = json.loads((folder / MANIFEST).read_text())
    if "arguments" in manifest:
        reader = SOURCES.get(str(manifest["arguments"].get("source")))
        file_keys = None if reader is None else frozenset((*reader.file_keys, *FILE_KEYS))
        manifest["arguments"] = _without_folders(manifest["arguments"], file_keys)
    return json.dumps(manifest, indent=2) + "\n"


def _without_folders(value: Any, file_keys: frozenset[str] | None, key: str = "") -> Any:
    """Replace paths by file names at any depth; a prompt is not a path, and a join is PREFIX=PATH.

    Args:
        file_keys: the keys that name files; None: any key may. An absolute value is a path of this machine in any case.
    """
    if isinstance(value, Mapping):
        return {name: _without_folders(item, file_keys, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_folders(item, file_keys, key) for item in value]
    names_file = file_keys is None or key in file_keys or key == "joins" or str(value).startswith("/")
    if not isinstance(value, str) or key == "prompt" or not names_file:
        return value
    prefix, equals, path = value.partition("=") if key == "joins" else ("", "", value)
    return prefix + equals + path.rstrip("/").rpartition("/")[2]


@command("data_prep.publish", PublishArguments, positionals=("out",))
def main(arguments: PublishArguments) -> None:
    """Make a data set for the Hub of region sidecars.

    Raises:
        DataError: a folder that is not a sidecar, or two sidecars of one source.
        RunError: the Hub refused; a folder that is complete by then stays, and `data_prep.push` uploads it.
    """
    out = Path(arguments.out)
    sidecars = _sidecars([path for pattern in arguments.regions for path in existing_paths(pattern)])
    check_push(arguments, REGIONS)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        staged = Path(temporary) / "staged"
        for folder, manifest in sidecars.items():
            _link_parts(folder, staged / "regions" / manifest.source)
            _link_parts(folder / SAMPLES, staged / SAMPLES / manifest.source)
            (staged / "regions" / manifest.source / MANIFEST).write_text(published_manifest(folder))
        write_card(
            staged,
            list(sidecars.values()),
            folder_name=out.name,
            repository=arguments.push_to,
            title=arguments.title or (arguments.push_to or out.name).rpartition("/")[2],
            data_license=arguments.license,
        )
        staged.rename(out)
    print(f"{out}: {sum(manifest.rows for manifest in sidecars.values()):,} questions of {len(sidecars)} sources")
    if arguments.push_to is not None:
        push_folder(out, arguments, REGIONS)


if __name__ == "__main__":
    main()
