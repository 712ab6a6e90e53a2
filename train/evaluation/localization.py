"""Locate the regions of an evaluation's questions, and measure how good they are.

predicted cells of the 8x8 grid over the un-padded image          # true   + predicted

. . . . .     contained: every cell of # is one of +     area ratio: cells of + over cells of #, of the sums
. + + + .     exact: the same cells                      grid IoU: cells in both over cells in either
. + # + .
. . . . .     The whole image contains everything: containment says nothing without the area.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from accelerate import PartialState
from accelerate.utils import gather_object, tqdm

from crop_model.localization.base import LocatedRegion, RegionLocalizer
from crop_model.regions import WHOLE_IMAGE, Cells, covered_cells, pixels_to_cells
from data_prep.schema.region_size import size_of
from train.data.collator import Collator


@dataclass(frozen=True)
class LocatedRow:
    """Hold a localizer's prediction for the first image of a question, and that image's size in pixels."""

    prediction: LocatedRegion
    width: int
    height: int


def locate(
    localizer: RegionLocalizer, samples: datasets.Dataset, collator: Collator, batch_size: int
) -> dict[str, LocatedRow]:
    """Locate a region for every question that has an image, by sample_id; the processes share the questions.

    Batches are the same for any number of processes, so that results round alike.
    """
    state = PartialState()
    with_image = [index for index, images in enumerate(samples["images"]) if images]
    batches = [with_image[start : start + batch_size] for start in range(0, len(with_image), batch_size)]
    mine = batches[state.process_index :: state.num_processes]
    located: list[tuple[str, LocatedRow]] = []
    for batch in tqdm(mine, desc="localizer", leave=False):
        rows = [samples[index] for index in batch]
        images = [collator.open_images(row)[0] for row in rows]
        regions = localizer.predict(images, [row["question"] for row in rows], batch_size)
        sized = [LocatedRow(region, *image.size) for region, image in zip(regions, images, strict=True)]
        located += zip([row["sample_id"] for row in rows], sized, strict=True)
    return dict(gather_object(located))


def measures(samples: datasets.Dataset, located: dict[str, LocatedRow]) -> dict[str, dict[str, float]]:
    """Measure the regions: over all questions with an image, by size of the true region, and by kind of question.

    Each group has `n`, `containment`, `area_ratio`, `grid_iou` and `exact`. `all` also has `global_f1`, the F1 score of
    recognising questions that need the whole image; it is 1 if there is no such question and no such answer.
    """
    groups: dict[str, list[tuple[Cells, Cells]]] = defaultdict(list)
    for sample_id, kind, region in zip(samples["sample_id"], samples["kind"], samples["region"], strict=True):
        if sample_id not in located:
            continue
        row = located[sample_id]
        true = WHOLE_IMAGE if region is None else pixels_to_cells(tuple(region), row.width, row.height)
        predicted = WHOLE_IMAGE if row.prediction.region is None else row.prediction.cells
        for group in ("all", f"size {size_of(true)}", *([] if kind is None else [kind])):
            groups[group].append((true, predicted))
    result = {name: _measures(pairs) for name, pairs in sorted(groups.items())}
    if "all" in result:
        result["all"]["global_f1"] = _f1([(true == WHOLE_IMAGE, cells == WHOLE_IMAGE) for true, cells in groups["all"]])
    return result


def _measures(pairs: Sequence[tuple[Cells, Cells]]) -> dict[str, float]:
    cells = [(covered_cells(true), covered_cells(predicted)) for true, predicted in pairs]
    return {
        "n": len(pairs),
        "containment": sum(true <= predicted for true, predicted in cells) / len(cells),
        "area_ratio": sum(len(predicted) for _, predicted in cells) / sum(len(true) for true, _ in cells),
        "grid_iou": sum(len(true & predicted) / len(true | predicted) for true, predicted in cells) / len(cells),
        "exact": sum(true == predicted for true, predicted in cells) / len(cells),
    }


def _f1(pairs: Sequence[tuple[bool, bool]]) -> float:
    both, either = sum(a and b for a, b in pairs), sum(a + b for a, b in pairs)
    return 2 * both / either if either else 1.0


def measures_text(result: dict[str, dict[str, Any]]) -> str:
    """Format the measures of all questions as one line for a log."""
    of_all = result["all"]
    return (
        f"localizer: containment {of_all['containment']:.1%} at {of_all['area_ratio']:.2f} times the area, grid IoU "
        f"{of_all['grid_iou']:.1%}, exact {of_all['exact']:.1%}, global F1 {of_all['global_f1']:.3f}"
    )
