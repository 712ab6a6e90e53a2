"""Write one HTML page about a data set's regions, for people to look at before training on them.

    python -m data_prep.report CONFIG.yaml [out=report.html] [samples=12] [seed=0]

CONFIG.yaml may be the training's own configuration. The page is self-contained: it includes its pictures and loads
nothing. Sidecars are read in batches, and the annotations once, for the answers of the samples that are shown.
"""

import base64
import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from crop_model.regions import covered_cells, pixels_to_cells
from data_prep.checking.region_statistics import RegionStatistics, read_statistics
from data_prep.common.atomic import write_atomically
from data_prep.common.command_line import command
from data_prep.common.errors import DataError, RecordError
from data_prep.common.fill import Checked, key
from data_prep.derivation.derive import FLAGS
from data_prep.files.images import MAX_IMAGE_PIXELS, ImageFiles, existing_image, open_image
from data_prep.schema.data_source import DataLists, DataSource
from data_prep.schema.records import Turn, conversation, image_names, named_record, record_stream
from data_prep.schema.sample import sample_id

THUMBNAIL = 384  # longest side, in pixels
QUALITY = 72

# Known mean and median area, in % of the image, of data from Visual-CoT's sets.
EXPECTED_AREA = {
    "docvqa": (6.2, 0.5), "textvqa": (4.3, 1.0), "gqa": (16.4, 6.5), "flickr30k": (13.9, 8.6),
    "openimages": (22.1, 11.8), "visual7w": (19.5, 5.7), "vsr": (37.5, 32.6), "visual_cot": (14.7, 4.6),
}  # fmt: skip


@dataclass(frozen=True)
class ReportArguments(Checked):
    """Choose what the page shows."""

    out: str = key("report.html", "The HTML file to write.")
    samples: int = key(12, "The number of questions per source that are shown with their image.")
    seed: int = key(0, "The seed of the choice of samples.")
    max_image_pixels: int = key(MAX_IMAGE_PIXELS, "The largest image that is shown, in pixels.")

    def mistakes(self) -> Iterator[str]:
        if self.samples < 0:
            yield f"samples: {self.samples} must not be negative"


def _section(role: str, source: DataSource, arguments: ReportArguments) -> dict[str, Any]:
    """Return the page's content about one source."""
    section: dict[str, Any] = {"role": role, "source": source, "statistics": None, "cards": []}
    if source.regions is None:
        return section
    statistics = read_statistics(Path(source.regions), arguments.samples, arguments.seed)
    answers = _answers(source, statistics)
    cards = [_card(row, answers.get(row["sample_id"]), source, arguments) for row in statistics.chosen]
    cover, name = statistics.cover_shares(), statistics.source.casefold().replace("-", "_")
    return section | {
        "statistics": statistics,
        "bins": statistics.bins(),
        "expected": next(((known, *areas) for known, areas in EXPECTED_AREA.items() if known in name), None),
        "cover": cover,
        "most_covered": max(max(line) for line in cover),
        "cards": cards,
    }


def _answers(source: DataSource, statistics: RegionStatistics) -> dict[str, str]:
    """Return the answers of the chosen rows by sample_id, as far as the annotations can be read."""
    missing = {row["sample_id"] for row in statistics.chosen}
    answers: dict[str, str] = {}
    with suppress(DataError):  # `data_prep.validate` names an unreadable file
        for index, raw in enumerate(record_stream(source.annotations)):
            for number, (image, turn) in enumerate(_turns(source.annotations, index, raw)):
                key = sample_id(statistics.source, image, number, turn.question)
                if key in missing:
                    answers[key] = turn.answer
                    missing.discard(key)
            if not missing:
                break
    return answers


def _turns(annotations: str, index: int, raw: Any) -> list[tuple[str, Turn]]:
    """Return (first image, turn) for a record's turns; none for a record without images or one that is bad."""
    try:
        name, record = named_record(annotations, index, raw)
        images = image_names(name, record)
        _, turns = conversation(name, record, len(images))
    except DataError:
        return []
    return [(images[0], turn) for turn in turns] if images else []


# ---- samples


def _card(row: dict[str, Any], answer: str | None, source: DataSource, arguments: ReportArguments) -> dict[str, Any]:
    """Return a sample: the row, its answer, its picture with region and grid."""
    card = row | {"answer": answer, "picture": None, "error": None, "cells": []}
    try:
        card["picture"] = _thumbnail(existing_image(ImageFiles(source.image_root).root, row["image"]), arguments)
    except RecordError as error:
        card["error"] = str(error)
    if row["region"] is not None:
        card["cells"] = sorted(covered_cells(pixels_to_cells(row["region"], row["width"], row["height"])))
    return card


def _thumbnail(path: Path, arguments: ReportArguments) -> str:
    """Return a small JPEG as a data URI, without EXIF orientation: boxes refer to the stored pixels."""
    with open_image(path, arguments.max_image_pixels) as image:
        image.draft("RGB", (THUMBNAIL, THUMBNAIL))
        small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


@command("data_prep.report", DataLists, ReportArguments, ignore_others_in_file=True)
def main(lists: DataLists, arguments: ReportArguments) -> None:
    """Write a page about regions: counts, areas, where they lie, samples.

    Raises:
        DataError: a sidecar cannot be read.
    """
    roles = {"training": lists.train_data, "held out": lists.eval_data}
    sources = [_section(role, source, arguments) for role, named in roles.items() for source in named]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "checking"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = environment.get_template("report.html.jinja").render(sources=sources, flags=FLAGS)
    Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(arguments.out), page.encode("utf-8", "xmlcharrefreplace"))
    print(arguments.out)


if __name__ == "__main__":
    main()
