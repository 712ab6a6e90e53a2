"""Read Visual-CoT's benchmark: `viscot_benchmark/benchmark/<set>.json`, each question with the box of its evidence.

    [{"dataset": "gqa", "split": "val", "question_id": 7,
      "image": ["cot/gqa/1.jpg", "cot/gqa/1.jpg###[217, 343, 242, 393]"],       pixels
      "conversations": [human: "<image>\\nWhat is it? Please provide the bounding box coordinate of the region ...",
                        gpt: "[0.542, 0.686, 0.592, 0.786]", human: "<image>", gpt: "window"]}, ...]

Question ids restart in every file. The prompt is the question alone, as for models that do not predict a box. The
benchmark's own score is a judgement of GPT-3.5, which no local metric reproduces.
"""

from collections.abc import Iterator
from pathlib import Path

from data_prep.common.errors import DataError
from data_prep.files.streams import json_list
from data_prep.sources import visual_cot_json
from data_prep.sources.base import Id
from data_prep.sources.visual_cot_json import pixel_boxes

from .files import numbered
from .question import BenchmarkQuestion

# The sets of the benchmark's script; its folder also has visual7w and emotic.
SETS = (
    "cub", "docvqa", "dude", "flickr30k", "gqa", "infographicsvqa", "openimages", "sroie", "textcap", "textvqa", "vsr",
)  # fmt: skip


class Record(visual_cot_json.Record):
    dataset: str
    question_id: Id


def read(path: Path) -> Iterator[BenchmarkQuestion]:
    """Read the questions of the `SETS` in the folder, or of the file `path`, grouped by data set."""
    files = [path] if path.is_file() else [file for name in SETS if (file := path / f"{name}.json").is_file()]
    if not files:
        raise DataError(f"{path}: none of the files {SETS[0]}.json ... {SETS[-1]}.json in it")
    for file in files:
        for name, record in numbered(file, Record, json_list(file)):
            turn, boxes = record.turn(name), pixel_boxes(record.image)
            if not boxes:
                raise DataError(f"{name}: no box in pixels after ### in its images")
            question_id, image = f"{file.stem}/{record.question_id}", record.image[0].partition("###")[0]
            targets, group = (turn.answer,), record.dataset
            yield BenchmarkQuestion(name, question_id, image, turn.question, targets, group=group, region=boxes[0])
