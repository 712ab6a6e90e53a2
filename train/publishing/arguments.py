"""The keys of an export."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transformers.utils.hub import convert_file_size_to_int

from data_prep.hub.upload import PushArguments


@dataclass
class ExportArguments(PushArguments):
    """What to export, whereto, and what its card says."""

    checkpoint: str = field(metadata={"help": "Folder or Hub name of a checkpoint of this project."})
    out: str = field(metadata={"help": "Folder to write; an earlier export there is replaced."})
    merge: bool = field(
        default=True,
        metadata={"help": "Merge LoRA into the weights; false: keep it beside them in adapter/, for PEFT."},
    )
    max_shard_size: str = field(
        default="5GB", metadata={"help": "Weights above this size are split into several files: 500MB, 5GB."}
    )
    overwrite: bool = field(default=False, metadata={"help": "Replace OUT even if it is not an earlier export."})
    evaluation: str | None = field(
        default=None, metadata={"help": "An evaluation.json of train.evaluate, for the card and .eval_results."}
    )
    base_model: str | None = field(default=None, metadata={"help": "Hub name of the base model, for the card."})
    license: str | None = field(default=None, metadata={"help": "License of the weights, for the card."})
    datasets: list[str] = field(
        default_factory=list, metadata={"help": "Hub names of the training data, for the card."}
    )
    image: str | None = field(
        default=None, metadata={"help": "Image of the proof and of the card; a drawn one unless given."}
    )
    question: str = field(default="What is in this place?", metadata={"help": "Question of the proof."})
    region: list[float] | None = field(
        default=None, metadata={"help": "Region of the proof, pixels x1 y1 x2 y2; the image's middle unless given."}
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
