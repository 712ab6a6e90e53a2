"""Samples that teach a localizer: a question in, its region's cells out, from the regions that are known.

    python -m data_prep.localizer_data 'regions/*' out.json [key=value ...]

    sidecar rows, human or ocr_match ─► box of the 8x8 grid over the un-padded image, [0, 0, 7, 7] for the whole image
                                     ─► balanced by size and source, seeded ─► LLaVA JSON that `train.localizer` reads

The answer is not shown, so a box that stands in it is no leak. Rows of other methods are guesses, and left out.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crop_model.regions import WHOLE_IMAGE, Cells, pixels_to_cells
from data_prep.common.atomic import write_atomically
from data_prep.common.command_line import Checked, command
from data_prep.common.errors import DataError
from data_prep.schema.data_source import existing_paths
from data_prep.schema.region_size import size_of
from data_prep.schema.sample import read_manifest, sidecar_batches

TAUGHT = ("human", "ocr_match")  # of the methods of a row


@dataclass(frozen=True)
class LocalizerDataArguments(Checked):
    """From which regions, and how many of each sort."""

    regions: str = field(metadata={"help": "Sidecar folders, by path or glob, all below one image root."})
    out: str = field(metadata={"help": "JSON to write, a list of LLaVA records."})
    per_size: int | None = field(
        default=None, metadata={"help": "At most so many of each size (small, medium, large, global); null: all."}
    )
    per_source: int | None = field(
        default=None, metadata={"help": "At most so many of each source, drawn before the sizes; null: all."}
    )
    whole_images: bool = field(
        default=False,
        metadata={
            "help": "All questions of an image in one conversation, for a training with split_turns: false "
            "that reads the image once for all of them. False: a record a question."
        },
    )
    seed: int = field(default=0, metadata={"help": "Of what is drawn."})

    def mistakes(self) -> Iterator[str]:
        if not existing_paths(self.regions):
            yield f"regions: no such folder: {self.regions}"
        for name in ("per_size", "per_source"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name}: must be at least 1, got {value}"


@dataclass(frozen=True)
class Lesson:
    """One question and the cells of its region."""

    sample_id: str
    source: str
    image: str
    question: str
    cells: Cells
    size: str  # small, medium, large or global


def record(taught: Sequence[Lesson]) -> dict:
    """Lessons about one image as a LLaVA record; `type` is the size, by which an evaluation groups."""
    turns: list[dict] = []
    for lesson in taught:
        turns.append({"from": "human", "value": lesson.question, "type": lesson.size})
        turns.append({"from": "gpt", "value": str(list(lesson.cells))})
    turns[0]["value"] = f"<image>\n{turns[0]['value']}"
    return {"id": taught[0].sample_id, "image": taught[0].image, "conversations": turns}


def by_image(taught: Sequence[Lesson]) -> list[list[Lesson]]:
    """The lessons of every image together, in their order."""
    groups: dict[tuple[str, str], list[Lesson]] = defaultdict(list)
    for lesson in taught:
        groups[lesson.source, lesson.image].append(lesson)
    return list(groups.values())


def lessons(folder: Path) -> Iterator[Lesson]:
    """What a sidecar teaches. DataError where it is none."""
    read_manifest(folder)
    for batch in sidecar_batches(folder):
        for row in batch.to_pylist():
            size = (row["width"], row["height"])
            # `global` teaches only where the whole image was meant, not where nothing was found
            if row["region"] is None and row["method"] == "global" and "no_evidence" not in row["flags"]:
                cells = WHOLE_IMAGE
            elif row["region"] is not None and row["method"] in TAUGHT:
                cells = pixels_to_cells(row["region"], *size)
            else:
                continue
            yield Lesson(row["sample_id"], row["source"], row["image"], row["question"], cells, size_of(cells))


def balanced(found: Sequence[Lesson], per_source: int | None, per_size: int | None, seed: int) -> list[Lesson]:
    """At most so many of each source, and of those at most so many of each size; in the order of their ids.

    What is drawn depends on seed and ids alone, not on the order in which they come.
    """
    kept = sorted(found, key=lambda lesson: lesson.sample_id)
    for limit, key in ((per_source, "source"), (per_size, "size")):
        if limit is None:
            continue
        groups: dict[str, list[Lesson]] = defaultdict(list)
        for lesson in kept:
            groups[getattr(lesson, key)].append(lesson)
        kept = [
            lesson
            for name, group in sorted(groups.items())
            for lesson in random.Random(f"{seed}:{name}").sample(group, min(limit, len(group)))
        ]
        kept.sort(key=lambda lesson: lesson.sample_id)
    return kept


@command("data_prep.localizer_data", LocalizerDataArguments, positionals=("regions", "out"))
def main(arguments: LocalizerDataArguments) -> None:
    """Make the samples that teach a localizer."""
    found = [lesson for folder in existing_paths(arguments.regions) for lesson in lessons(folder)]
    kept = balanced(found, arguments.per_source, arguments.per_size, arguments.seed)
    if not kept:
        raise DataError(f"{arguments.regions}: no row of method {' or '.join(TAUGHT)}, nothing to teach")
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    grouped = by_image(kept) if arguments.whole_images else [[lesson] for lesson in kept]
    write_atomically(out, json.dumps([record(group) for group in grouped]))
    counts = Counter(lesson.size for lesson in kept)
    print(f"{out}: {len(kept):,} of {len(found):,} questions: {', '.join(f'{n:,} {s}' for s, n in counts.items())}")


if __name__ == "__main__":
    main()
