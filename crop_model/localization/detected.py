"""Localize without training: a grounding detector of transformers looks for what a question names.

    question ─► text query ─► detector ─► boxes with scores ─► those above the threshold ─► one region
                                                                └─ none: the whole image

GroundingDINO and OWLv2 find what a text names; questions are not what they were trained on. Neither needs torchvision;
OWLv2's image processor needs scipy. OWLv2 reads 16 tokens of a question, GroundingDINO 256: the rest is cut off.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForZeroShotObjectDetection, AutoProcessor

from crop_model.regions import WHOLE_IMAGE, Box, RegionError, pixels_to_cells, sanitize_box, union_box

from .base import LocatedRegion, ModelLocalizer

DETECTORS = ("grounding-dino", "owlv2")  # model types
THRESHOLD = 0.25  # GroundingDINO's own; OWLv2's scores are lower, its own is 0.1
Choice = Literal["union", "best"]
CHOICES = ("union", "best")


class ZeroShotLocalizer(ModelLocalizer):
    """Put a detector and its processor behind a localizer's call.

    A region is the detector's box in pixels, clipped to the image and not widened to cells. It is None if no box
    counts, or if it touches every cell. The confidence is the best score of all boxes, also of those that do not count.

    Args:
        model: of one of `DETECTORS`, on its device, in eval mode; ValueError for another.
        processor: the model's.
        threshold: a box counts if its score is above it.
        choice: the region is the `union` of the boxes that count, or the `best` of them; ValueError for another.
    """

    auto_class = AutoModelForZeroShotObjectDetection

    def __init__(self, model: Any, processor: Any, threshold: float = THRESHOLD, choice: Choice = "union"):
        _check_type(model.config.model_type)
        if choice not in CHOICES:
            raise ValueError(f"choice: {choice!r} is none of {', '.join(CHOICES)}")
        super().__init__(model, processor, threshold)
        self.choice = choice

    @classmethod
    def load_processor(cls, name: str, **pixels: int) -> Any:
        _check_type(AutoConfig.from_pretrained(name).model_type)
        return AutoProcessor.from_pretrained(name, **pixels)

    @torch.inference_mode()
    def _predict(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[LocatedRegion]:
        config = self.model.config
        dino = config.model_type == "grounding-dino"
        longest = config.max_text_len if dino else config.text_config.max_position_embeddings
        inputs = self.processor(
            images=list(images),
            text=[_query(question) for question in questions],
            padding=True,
            truncation=True,
            max_length=longest,
            return_tensors="pt",
        ).to(self.model.device, self.model.dtype)
        outputs = self.model(**inputs)
        detected = self.processor.post_process_grounded_object_detection(
            outputs, threshold=-1.0, target_sizes=[(image.height, image.width) for image in images]
        )
        return [
            self._located(image, boxes["boxes"].tolist(), boxes["scores"].tolist())
            for image, boxes in zip(images, detected, strict=True)
        ]

    def _located(self, image: Image.Image, boxes: Sequence[Sequence[float]], scores: Sequence[float]) -> LocatedRegion:
        clipped = [(_clip(box, image), score) for box, score in zip(boxes, scores, strict=True)]
        inside = sorted(((box, score) for box, score in clipped if box is not None), key=lambda pair: -pair[1])
        confidence = inside[0][1] if inside else 0.0
        counting = [box for box, score in inside if score > self.threshold]
        if not counting:
            return LocatedRegion(None, WHOLE_IMAGE, confidence)
        region = counting[0] if self.choice == "best" else union_box(counting)
        cells = pixels_to_cells(region, *image.size)
        return LocatedRegion(None if cells == WHOLE_IMAGE else region, cells, confidence)


def _check_type(model_type: str) -> None:
    if model_type not in DETECTORS:
        raise ValueError(f"a model of type {model_type} is no zero-shot localizer: none of {', '.join(DETECTORS)}")


def _query(question: str) -> str:
    """Lower the case and end with a full stop, without which GroundingDINO's processor reads labels of one image."""
    return question.strip().lower().rstrip(" .?") + "."


def _clip(box: Sequence[float], image: Image.Image) -> Box | None:
    """Clip a box to the image; None if it lies outside, in the padding that makes OWLv2's input square."""
    try:
        return sanitize_box(box, *image.size)
    except RegionError:
        return None
