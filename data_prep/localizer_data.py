"""Make training samples for a localizer from known regions: a question in, its region's cells out.

    python -m data_prep.localizer_data 'regions/*' out.json [key=value ...]

    sidecar rows, human or ocr_match ─► box of the 8x8 grid over the un-padded image, [0, 0, 7, 7] for the whole image
                                     ─► balanced by size and source, seeded ─► LLaVA JSON that `train.localizer` reads

The answer is not part of a sample, so that a box in it is no leak. Rows of other methods are guesses and are left out.
"""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crop_model.regions import WHOLE_IMAGE, Cells, pixels_to_cells
from data_prep.common.atomic import write_atomically
from data_prep.common.command_line import command
from data_prep.common.errors import DataError
from data_prep.common.fill import Checked, key
from data_prep.schema.data_source import existing_paths
from data_prep.schema.records import Turn, llava_record
from data_prep.schema.region_size import size_of
from data_prep.schema.sample import read_manifest, sidecar_batches

TRAINED_METHODS = ("human", "ocr_match")  # methods of the rows that become samples


@dataclass(frozen=True)
class LocalizerDataArguments(Checked):
    """Choose the regions to read, and how many of each sort to draw."""

    regions: str = field(metadata={"help": "The sidecar folders, by path or glob, all below one image root."})
    out: str = field(metadata={"help": "The JSON file to write, a list of LLaVA records."})
    per_size: int | None = key(
        None, "The largest number of questions of each size (small, medium, large, global); null: all."
    )
    per_source: int | None = key(
        None, "The largest number of questions of each source, drawn before the sizes; null: all."
    )
    whole_images: bool = key(
        False,
        "Put all questions of an image into one conversation, for a training with split_turns: false "
        "that reads the image once for all of them. False: one record per question.",
    )
    seed: int = key(0, "The seed of the draws.")

    def mistakes(self) -> Iterator[str]:
        if not existing_paths(self.regions):
            yield f"regions: no such folder: {self.regions}"
        for name in ("per_size", "per_source"):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield f"{name}: must be at least 1, got {value}"


@dataclass(frozen=True)
class Lesson:
    """Hold one question and the cells of its region."""

    sample_id: str
    source: str
    image: str
    question: str
    cells: Cells
    size: str  # small, medium, large or global, by which an evaluation groups

    def turn(self) -> Turn:
        return Turn(self.question, str(list(self.cells)), self.size)


def read_lessons(folder: Path) -> Iterator[Lesson]:
    """Read the lessons of a sidecar; DataError if it is not one."""
    read_manifest(folder)
    for batch in sidecar_batches(folder):
        for row in batch.to_pylist():
            size = (row["width"], row["height"])
            # `global` is a lesson only if the source means the whole image, not for want of evidence
            if row["region"] is None and row["method"] == "global" and "no_evidence" not in row["flags"]:
                cells = WHOLE_IMAGE
            elif row["region"] is not None and row["method"] in TRAINED_METHODS:
                cells = pixels_to_cells(row["region"], *size)
            else:
                continue
            yield Lesson(row["sample_id"], row["source"], row["image"], row["question"], cells, size_of(cells))


def balanced(lessons: Sequence[Lesson], per_source: int | None, per_size: int | None, seed: int) -> list[Lesson]:
    """Draw at most so many lessons of each source, and of those at most so many of each size; sorted by id.

    The draw depends on seed and ids alone, not on the order of the lessons.
    """
    chosen = sorted(lessons, key=lambda lesson: lesson.sample_id)
    for limit, name in ((per_source, "source"), (per_size, "size")):
        if limit is None:
            continue
        groups: dict[str, list[Lesson]] = defaultdict(list)
        for lesson in chosen:
            groups[getattr(lesson, name)].append(lesson)
        chosen = [
            lesson
            for value, group in sorted(groups.items())
            for lesson in random.Random(f"{seed}:{value}").sample(group, min(limit, len(group)))
        ]
        chosen.sort(key=lambda lesson: lesson.sample_id)
    return chosen


@command("data_prep.localizer_data", LocalizerDataArguments, positionals=("regions", "out"))
def main(arguments: LocalizerDataArguments) -> None:
    """Make the samples that teach a localizer."""
    lessons = [lesson for folder in existing_paths(arguments.regions) for lesson in read_lessons(folder)]
    chosen = balanced(lessons, arguments.per_source, arguments.per_size, arguments.seed)
    if not chosen:
        raise DataError(f"{arguments.regions}: no row of method {' or '.join(TRAINED_METHODS)}, nothing to teach")
    out = Path(arguments.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    conversations: dict[Hashable, list[Lesson]] = defaultdict(list)
    for number, lesson in enumerate(chosen):
        conversations[(lesson.source, lesson.image) if arguments.whole_images else number].append(lesson)
    records = [
        llava_record(first.sample_id, first.image, map(Lesson.turn, [first, *others]))
        for first, *others in conversations.values()
    ]
    write_atomically(out, json.dumps(records))
    counts = Counter(lesson.size for lesson in chosen)
    print(f"{out}: {len(chosen):,} of {len(lessons):,} questions: {', '.join(f'{n:,} {s}' for s, n in counts.items())}")


if __name__ == "__main__":
    main()
