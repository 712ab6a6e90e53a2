"""Ask an exported model a question and draw what it looked at.

    python -m train.answer EXPORT PICTURE image=FILE question="..." [region=[x1,y1,x2,y2]]
    python -m train.answer EXPORT PICTURE image=FILE question="..." localizer=LOCALIZER     which finds the region
    python -m train.answer EXPORT PICTURE CONFIG.yaml                   questions of `eval_data`, of every kind

The model is loaded as a stranger loads it: Auto classes, the folder alone. PICTURE shows the image, its region, how
finely the visual tokens divide it, the question and the answer. Printed are the answer, its region, and the seconds
from the image's file to the region, to the first token (localization included) and to the last.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image

from data_prep.common.command_line import command
from data_prep.common.errors import ConfigError
from data_prep.common.fill import Checked, key
from train.arguments.data import DataArguments
from train.backbones import BACKBONES
from train.backbones.localizers import load_localizer
from train.data.samples import load_samples
from train.pictures.asking import answer_and_draw, load_export, own_question, pick_samples
from train.pictures.card import contact_sheet


@dataclass
class AnswerArguments(Checked):
    """Define what to ask, and where the picture goes."""

    export: str = field(metadata={"help": "The folder or Hub name of an export. Its own code is run."})
    picture: str = field(metadata={"help": "The file to draw to."})
    image: str | None = key(None, "The image to ask about, instead of eval_data.")
    question: str | None = key(None, "The question about it.")
    region: list[float] | None = key(None, "The region, pixels x1 y1 x2 y2; null: the whole image.")
    localizer: str | None = key(
        None, "A checkpoint, export or detector (GroundingDINO, OWLv2) that finds every question's region."
    )
    count: int = key(6, "The number of questions of eval_data.")
    max_new_tokens: int = key(32, "The length of the longest answer, in tokens.")

    def mistakes(self) -> Iterator[str]:
        if Image.registered_extensions().get(Path(self.picture).suffix.lower()) not in Image.SAVE:
            yield f"picture: {self.picture}: no picture can be written by that name; end it in .png, .jpg or .webp"
        if (self.image is None) != (self.question is None):
            yield "image and question go together"
        if self.image is not None and not Path(self.image).is_file():
            yield f"image: no such file: {self.image}"
        if self.region is not None and len(self.region) != 4:
            yield f"region: expected x1, y1, x2, y2, got {self.region}"
        elif self.region is not None and (self.region[0] == self.region[2] or self.region[1] == self.region[3]):
            yield f"region: a box without area: {self.region}"
        if self.region is not None and self.localizer is not None:
            yield "region and localizer: give one of them, not both"
        if self.count < 1 or self.max_new_tokens < 1:
            yield "count and max_new_tokens: must be at least 1"


@command("train.answer", AnswerArguments, DataArguments, positionals=("export", "picture"))
def main(arguments: AnswerArguments, data: DataArguments) -> None:
    """Ask an exported model a question and draw what it looked at."""
    if arguments.image is None and not data.eval_data:
        raise ConfigError("neither image and question nor eval_data: nothing to ask")
    rows = [] if arguments.image is None else [own_question(arguments.image, str(arguments.question), arguments.region)]
    model, processor = load_export(arguments.export)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    localizer = None
    if arguments.localizer is not None:
        localizer = load_localizer(arguments.localizer, model.dtype, model.device)
    if not rows:
        rows = pick_samples(load_samples(data.eval_data, processor, data.max_length), arguments.count)
    collator = BACKBONES[model.config.model_type].collator(processor, data.max_image_pixels)
    pictures = []
    for row in rows:
        answered = answer_and_draw(model, collator, localizer, row, arguments.max_new_tokens)
        expected = "" if row["answer"] is None else f"   (expected: {row['answer']})"
        print(f"Q: {row['question']}\nA: {answered.answer}{expected}\n   {answered.describe()}")
        pictures.append(answered.picture)
    path = Path(arguments.picture)
    path.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet(pictures, columns=min(2, len(pictures))).save(path)


if __name__ == "__main__":
    main()
