"""The keys of an export."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transformers.utils.hub import convert_file_size_to_int

from data_prep.common.fill import key
from data_prep.hub.upload import PushArguments


@dataclass
class ExportArguments(PushArguments):
    """Choose the checkpoint to export, the folder to write, and the card's facts."""

    checkpoint: str = field(metadata={"help": "The folder or Hub name of a checkpoint of this project."})
    out: str = field(metadata={"help": "The folder to write; an earlier export there is replaced."})
    merge: bool = key(
        True, "Whether LoRA is merged into the weights; false: it lies beside them in adapter/, for PEFT."
    )
    max_shard_size: str = key("5GB", "The size above which weights are split into several files: 500MB, 5GB.")
    overwrite: bool = key(False, "Whether OUT is replaced even if it is not an earlier export.")
    evaluation: str | None = key(None, "An evaluation.json of train.evaluate, for the card and .eval_results.")
    base_model: str | None = key(None, "The Hub name of the base model, for the card.")
    license: str | None = key(None, "The license of the weights, for the card.")
    datasets: list[str] = key(list, "The Hub names of the training data, for the card.")
    image: str | None = key(None, "The image of the proof and of the card; null: a drawn one.")
    question: str = key("What is in this place?", "The question of the proof.")
    region: list[float] | None = key(
        None, "The region of the proof in pixels, x1 y1 x2 y2; null: the middle of the image."
    )

    def mistakes(self) -> Iterator[str]:
        yield from super().mistakes()
        if self.image is not None and not Path(self.image).is_file():
            yield f"image: no such file: {self.image}"
        if self.region is not None and len(self.region) != 4:
            yield f"region: expected x1, y1, x2, y2, got {self.region}"
        try:
            convert_file_size_to_int(self.max_shard_size)
        except ValueError:
            yield f"max_shard_size: {self.max_shard_size!r} is no size such as 500MB or 5GB"
