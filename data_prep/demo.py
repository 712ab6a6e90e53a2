"""Make the demo's data: images, LLaVA-style annotations and region sidecars, like those of a real source.

    python -m data_prep.demo OUT [key=value ...]

    OUT/train.json, test.json            LLaVA JSON, several questions per image, "type" names the type of question
    OUT/images/{train,test}/00000.png    PNG and JPEG of varying size and aspect; image paths are relative to OUT/images
    OUT/regions/{train,test}/            the sidecar of `data_prep.schema.sample`

The same arguments write the same bytes. No handwritten digit occurs in both splits.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crop_model.regions import union_box
from data_prep.boards.questions import BoardQuestion, ask
from data_prep.boards.scenes import Scene, compose, load_scans, render
from data_prep.common.atomic import write_atomically
from data_prep.common.command_line import command
from data_prep.common.fill import Checked, key
from data_prep.schema.records import Turn, llava_record
from data_prep.schema.sample import RegionAnnotation, file_hashes, sample_id, write_regions

SPLITS = ("train", "test")
JPEG_SHARE = 0.5
JPEG_QUALITY = 95


@dataclass(frozen=True)
class OutputArguments(Checked):
    """Choose the folder of the data."""

    out: str = field(metadata={"help": "The folder that the data is written to."})

    def mistakes(self) -> Iterator[str]:
        if Path(self.out).is_file():
            yield f"out: {self.out} is a file, not a folder"


@dataclass(frozen=True)
class DemoArguments(Checked):
    """Choose how much data to make, and the seed."""

    train_images: int = key(2000, "The number of images of the split to train on.")
    test_images: int = key(250, "The number of images of the held-out split.")
    questions_per_image: int = key(6, "The number of questions per image, 20 at most.")
    seed: int = key(0, "The seed of scenes and questions; the same seed writes the same bytes.")

    def mistakes(self) -> Iterator[str]:
        for name in ("train_images", "test_images", "questions_per_image"):
            if getattr(self, name) < 1:
                yield f"{name}: {getattr(self, name)} must be at least 1"
        if self.seed < 0:
            yield f"seed: {self.seed} must not be negative"
        if self.questions_per_image > 20:
            yield f"questions_per_image: {self.questions_per_image} is above 20"


def write_demo(out: Path, arguments: DemoArguments) -> None:
    """Write both splits below `out`."""
    for split in SPLITS:
        write_split(out, split, arguments)


def write_split(out: Path, split: str, arguments: DemoArguments) -> None:
    """Write one split: its images, then its annotations, then its region sidecar."""
    scans = load_scans(split)
    (out / "images" / split).mkdir(parents=True, exist_ok=True)
    records: list[dict[str, Any]] = []
    annotations: list[RegionAnnotation] = []
    for number in range({"train": arguments.train_images, "test": arguments.test_images}[split]):
        rng = np.random.default_rng([arguments.seed, SPLITS.index(split), number])
        scene = compose(rng, scans)
        questions = ask(rng, scene, arguments.questions_per_image)
        image = save_image(render(scene, scans, rng), out / "images", f"{split}/{number:05d}", rng)
        turns = [Turn(question.text, question.answer, question.kind) for question in questions]
        records.append(llava_record(f"{split}-{number:05d}", image, turns))
        annotations += [_annotation(split, image, *numbered, scene) for numbered in enumerate(questions)]
    path = out / f"{split}.json"
    write_atomically(path, json.dumps(records, indent=1) + "\n")
    write_regions(out / "regions" / split, annotations, {"arguments": asdict(arguments), "inputs": file_hashes([path])})


def save_image(image: Image.Image, root: Path, stem: str, rng: np.random.Generator) -> str:
    """Save as JPEG or PNG; return the path relative to `root`."""
    if rng.random() < JPEG_SHARE:
        image.save(root / f"{stem}.jpg", quality=JPEG_QUALITY, subsampling=0)
        return f"{stem}.jpg"
    image.save(root / f"{stem}.png")
    return f"{stem}.png"


def _annotation(split: str, image: str, turn: int, question: BoardQuestion, scene: Scene) -> RegionAnnotation:
    """Return the sidecar's row for a question; its boxes are exact by construction, so that the method is `human`."""
    return RegionAnnotation(
        sample_id=sample_id(split, image, turn, question.text),
        source=split,
        image=image,
        turn=turn,
        question=question.text,
        width=scene.size[0],
        height=scene.size[1],
        boxes=question.boxes,
        region=union_box(question.boxes) if question.boxes else None,
        method="human" if question.boxes else "global",
    )


@command("data_prep.demo", OutputArguments, DemoArguments, positionals=("out",))
def main(output: OutputArguments, arguments: DemoArguments) -> None:
    """Make the demo's images, questions and region sidecars."""
    write_demo(Path(output.out), arguments)
    print(f"{output.out}: {arguments.train_images} train and {arguments.test_images} test images, with regions")


if __name__ == "__main__":
    main()
