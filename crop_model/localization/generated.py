"""Localize with a trained model: from a question to the region of its image that matters, CROP's first step.

A visual-language model, fine-tuned for it, reads image and question and writes a box of the 8x8 grid over the
un-padded image, first and last column and row, inclusive:

      0 1 2 3 4 5 6 7
    0 . . . . . . . .
    1 . . # # # . . .        [2, 1, 4, 2]
    2 . . # # # . . .
    3 . . . . . . . .        [0, 0, 7, 7]: the whole image, no region

The paper's region is a box [xmin, ymin, xmax, ymax] of grid indices. Its decoding is this project's: no other text can
be written, whatever the weights, and the probabilities of the four indices give a confidence.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, LogitsProcessorList, ProcessorMixin

from crop_model.generation.prompts import GREEDY, conversations, encode
from crop_model.processing_qwen2_vl import Qwen2VLImageTextProcessor
from crop_model.regions import WHOLE_IMAGE, Cells, cells_to_pixels

from .base import LocatedRegion, ModelLocalizer
from .grid_box import GridBoxProcessor

# By model type, for images that vary in size; the processors of the Auto class need torchvision for them.
PROCESSORS: Mapping[str, type[ProcessorMixin]] = {"qwen2_vl": Qwen2VLImageTextProcessor}


class Localizer(ModelLocalizer):
    """Locate regions with a fine-tuned model that writes a box of grid indices.

    Args:
        model: generates text from image and text, on its device, in eval mode. One that compresses visual tokens gets
            no region.
        processor: with a chat template.
        threshold: a region that is less probable is not trusted: the whole image instead.
    """

    auto_class = AutoModelForImageTextToText
    trust_remote_code = True

    @classmethod
    def load_processor(cls, name: str, **pixels: int) -> ProcessorMixin:
        """Load a processor by its class in `PROCESSORS`, or by the Auto class.

        ValueError if `pixels`, min_pixels and max_pixels of an image, are out of order or of a model that has no entry.
        """
        own = PROCESSORS.get(AutoConfig.from_pretrained(name, trust_remote_code=True).model_type)
        if own is not None:
            return own.from_pretrained(name, **pixels)
        if pixels:
            raise ValueError(f"{', '.join(pixels)}: of {', '.join(PROCESSORS)} alone, whose images vary in size")
        return AutoProcessor.from_pretrained(name, trust_remote_code=True)

    @torch.inference_mode()
    def _predict(self, images: Sequence[Image.Image], questions: Sequence[str]) -> list[LocatedRegion]:
        inputs = self._prompts(images, questions)
        box = GridBoxProcessor(self.processor.tokenizer, inputs["input_ids"].shape[1])
        written, scores = self._write(inputs, box)
        indices = box.indices(written)  # (B, 4)
        chosen = written[:, box.prompt_length :][:, box.positions, None]  # (B, 4, 1)
        confidence = scores.softmax(dim=-1).gather(2, chosen).prod(dim=1).nan_to_num().flatten()  # (B,)
        return [
            self._located(image, cells, sure)
            for image, cells, sure in zip(images, indices.tolist(), confidence.tolist(), strict=True)
        ]

    def _prompts(self, images: Sequence[Image.Image], questions: Sequence[str]) -> Mapping[str, Any]:
        inputs = encode(self.processor, conversations(images, questions), add_generation_prompt=True)
        return inputs.to(self.model.device, self.model.dtype)

    def _write(self, inputs: Mapping[str, Any], box: GridBoxProcessor) -> tuple[Tensor, Tensor]:
        """Return prompts and answers up to the last index, int64 (B, L), and every index's scores, float32 (B, 4, V).

        The tokens between two indices are known: they go into the model together with the index before them.
        """
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        more = {name: value for name, value in inputs.items() if name not in ("input_ids", "attention_mask")}
        scores: list[Tensor] = []
        for position in box.positions:
            if scores:
                known = box.fixed[ids.shape[1] - box.prompt_length : position]  # (tokens before the next index,)
                ids = torch.cat([ids, known.to(ids.device).expand(len(ids), -1)], dim=1)
            mask = nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)
            written = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                **more,
                logits_processor=LogitsProcessorList([box]),
                max_new_tokens=box.prompt_length + position + 1 - ids.shape[1],
                **GREEDY,
                repetition_penalty=1.0,  # a model's own would keep an index from coming twice
                use_cache=True,
                output_scores=True,
                return_dict_in_generate=True,
                pad_token_id=self.processor.tokenizer.pad_token_id,
            )
            ids, more = written.sequences, {"past_key_values": written.past_key_values}
            scores.append(written.scores[-1])
        return ids, torch.stack(scores, dim=1).float()

    def _located(self, image: Image.Image, cells: Sequence[int], confidence: float) -> LocatedRegion:
        xmin, ymin, xmax, ymax = cells
        box: Cells = (xmin, ymin, xmax, ymax)
        trusted = box != WHOLE_IMAGE and confidence >= self.threshold
        return LocatedRegion(cells_to_pixels(box, *image.size) if trusted else None, box, confidence)
