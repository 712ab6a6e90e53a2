"""Answer questions about images, and report the regions and the time.

images, questions ─► localizer ─► regions ─► processor ─► model ─► answers
                     or none      or none

pipeline = CropPipeline.from_pretrained("exported", "localizer")
for result in pipeline(images, questions):
    print(result.answer, result.region, result.timings.first_token_s)
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from crop_model.generation.prompts import conversations, encode
from crop_model.generation.timing import Timings, generate_timed
from crop_model.localization.base import RegionLocalizer, in_batches
from crop_model.localization.generated import Localizer
from crop_model.regions import Box, Cells


@dataclass(frozen=True)
class PipelineAnswer:
    """Hold the answer to one question. Without a localizer there are neither region, cells nor confidence.

    Args:
        answer: the model's text.
        region, cells, confidence: as in `LocatedRegion`; region None: the whole image.
        timings: of the question's batch.
    """

    answer: str
    region: Box | None
    cells: Cells | None
    confidence: float | None
    timings: Timings


class CropPipeline:
    """Run a localizer, a model that reads regions, and its processor.

    Args:
        model: generates text from image and text, on its device, in eval mode.
        processor: the model's, with a chat template.
        localizer: finds regions; None: every question gets the whole image. ValueError if the model reads none.
    """

    def __init__(self, model: Any, processor: Any, localizer: RegionLocalizer | None = None):
        self.reads_regions = "compressor_type" in model.config.to_dict()
        if localizer is not None and not self.reads_regions:
            raise ValueError(f"localizer: a model of type {model.config.model_type} reads no regions")
        self.model, self.processor, self.localizer = model, processor, localizer

    @classmethod
    def from_pretrained(
        cls,
        vlm: str,
        localizer: str | RegionLocalizer | None = None,
        *,
        dtype: torch.dtype | str = "auto",
        device: torch.device | str = "cpu",
    ) -> "CropPipeline":
        """Load from folders or Hub names by the Auto classes. An export's own code is run.

        Args:
            localizer: a model that was trained to write boxes, or a loaded localizer, such as
                `ZeroShotLocalizer.from_pretrained(...)`.
            dtype, device: of both models.
        """
        model = AutoModelForImageTextToText.from_pretrained(vlm, dtype=dtype, trust_remote_code=True)
        processor = AutoProcessor.from_pretrained(vlm, trust_remote_code=True)
        if isinstance(localizer, str):
            localizer = Localizer.from_pretrained(localizer, dtype=dtype, device=device)
        return cls(model.to(device).eval(), processor, localizer)

    def __call__(
        self, images: Sequence[Image.Image], questions: Sequence[str], batch_size: int = 8, max_new_tokens: int = 32
    ) -> list[PipelineAnswer]:
        """Return one greedy answer per question, about the image of its index. ValueError if the numbers differ."""
        return in_batches(partial(self._answer, max_new_tokens=max_new_tokens), images, questions, batch_size)

    @torch.inference_mode()
    def _answer(
        self, images: Sequence[Image.Image], questions: Sequence[str], max_new_tokens: int
    ) -> list[PipelineAnswer]:
        start = time.perf_counter()
        located: list[tuple[Box | None, Cells | None, float | None]] = [(None, None, None)] * len(images)
        localization_s = 0.0
        if self.localizer is not None:
            regions = self.localizer.predict(images, questions, len(images))
            located = [(one.region, one.cells, one.confidence) for one in regions]
            localization_s = time.perf_counter() - start
        options = {"regions": [region for region, _, _ in located]} if self.reads_regions else None
        messages = conversations(images, questions)
        inputs = encode(self.processor, messages, processor_options=options, add_generation_prompt=True)
        inputs = inputs.to(self.model.device, self.model.dtype)
        tokens, first_at = generate_timed(self.model, inputs, self.processor.tokenizer.pad_token_id, max_new_tokens)
        timings = Timings(localization_s, first_at - start, time.perf_counter() - start)
        answers = self.processor.batch_decode(tokens, skip_special_tokens=True)
        return [PipelineAnswer(text.strip(), *region, timings) for text, region in zip(answers, located, strict=True)]
