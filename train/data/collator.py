"""Turn samples into a batch: open the images, apply the chat template, pad or pack, and mark what the loss sees.

The processor does the work; nothing here depends on how a template, a tokenizer or an image processor is built. All of
it runs in the data loader's worker processes, if there are any.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from crop_model.generation.prompts import encode
from crop_model.processing_crop_llava import CropLlavaProcessor
from crop_model.regions import Box, RegionError
from data_prep.common.errors import DataError, RecordError
from data_prep.files.images import MAX_IMAGE_PIXELS, open_rgb

from .quarantine import BadSample
from .rows import row_name
from .samples import bad_sample

IGNORE_INDEX = -100  # label that the loss ignores
Row = Mapping[str, Any]
Opened = tuple[Row, list[Image.Image]]


class Collator:
    """Turn rows of `load_samples` into model inputs.

    Args:
        processor: the model's; its token budget is checked against the placeholders of every sample.
        max_image_pixels: larger images are refused before they are decoded.
        skip_bad: leave out a sample that cannot be used and report it in `bad_samples`; otherwise it is an error.
    """

    def __init__(
        self,
        processor: CropLlavaProcessor,
        max_image_pixels: int = MAX_IMAGE_PIXELS,
        skip_bad: bool = False,
    ) -> None:
        self.processor = processor
        self.max_image_pixels = max_image_pixels
        self.skip_bad = skip_bad

    def __call__(self, items: Sequence[Any]) -> dict[str, Any]:
        """Make a training batch, padded on the right.

        Args:
            items: B samples, each a row of the batch; or B lists of samples, each packed into one row.

        Returns:
            input_ids, labels (B, L), labels being -100 outside the answers.
            attention_mask (B, L); or, for packed rows, position_ids (B, L) that restart at 0 with every sample and at
            every token of padding, and use_cache False: from these transformers derives attention within samples only.
            Unless every sample is text alone, pixel_values (images, 3, S, S) and region_mask (images, N) over all
            images in order.
            For the trainer, not for the model: sample_ids; bad_samples, if any; for packed rows, sample_sizes, the
            tokens and images of each row's samples.

        Raises:
            DataError: an image that does not open, is too large or has another size than its region's; a sample whose
                placeholders do not match its images, or without a supervised token. All but the placeholders' may be
                skipped.
        """
        packed = isinstance(items[0], list)
        bad: list[BadSample] = []
        rows = [self._open_all(item if packed else [item], bad) for item in items]
        samples = [sample for row in rows for sample in row]
        encoded, images = self._encode(samples, bad) if samples else ([], {})
        pieces = iter(encoded)
        batch = self._lay_out([[next(pieces) for _ in row] for row in rows], packed) | images
        batch["sample_ids"] = [sample["sample_id"] for sample, _ in samples]
        if packed:
            tokens = iter([len(ids) for ids, _ in encoded])
            batch["sample_sizes"] = [[(next(tokens), len(opened)) for _, opened in row] for row in rows]
        if bad:
            batch["bad_samples"] = bad
        return batch

    def prompts(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Make a batch for `generate`: everything before the last answer, padded on the left."""
        asked = [
            ({**row, "messages": json.dumps(json.loads(row["messages"])[:-1])}, self.open_images(row)) for row in rows
        ]
        return self._apply_template(asked, padding_side="left", add_generation_prompt=True)

    def open_images(self, row: Row) -> list[Image.Image]:
        """Open the row's images in RGB, un-rotated as annotations see them: an EXIF orientation is not applied."""
        size = None if row["width"] is None else (row["width"], row["height"])  # the first image's
        try:
            return [
                open_rgb(Path(path), self.max_image_pixels, size if number == 0 else None)
                for number, path in enumerate(row["images"])
            ]
        except RecordError as error:
            raise DataError(f"{row_name(row)}: {error}") from None

    def region(self, row: Row) -> Box | None:
        """Return the row's region in pixels, expanded by the processor, or None."""
        if row["region"] is None:
            return None
        try:
            return self.processor.grow_region(tuple(row["region"]), row["width"], row["height"])
        except RegionError as error:
            raise DataError(f"{row_name(row)}: {error}") from None

    def _open_all(self, rows: Sequence[Row], bad: list[BadSample]) -> list[Opened]:
        """Open the images of the rows, without rows that cannot be used if bad samples are skipped."""
        opened = []
        for row in rows:
            try:
                self.region(row)
                opened.append((row, self.open_images(row)))
            except DataError as error:
                if not self.skip_bad:
                    raise
                bad.append(bad_sample(row, str(error)))
        return opened

    def _encode(
        self, samples: Sequence[Opened], bad: list[BadSample]
    ) -> tuple[list[tuple[Tensor, Tensor]], dict[str, Tensor]]:
        """Encode input_ids (L_i) and labels (L_i) of every sample, and the model's inputs for all their images."""
        batch = self._apply_template(samples, padding_side="right", return_assistant_tokens_mask=True)
        answers = torch.tensor(batch.pop("assistant_masks")).bool()  # (samples, L)
        encoded = []
        for (row, _), ids, is_token, answer in zip(
            samples, batch.pop("input_ids"), batch.pop("attention_mask").bool(), answers, strict=True
        ):
            if not answer.any():
                reason = f"{row_name(row)}: no token of it is supervised; check the chat template"
                if not self.skip_bad:
                    raise DataError(reason)
                bad.append(bad_sample(row, reason))
            labels = ids.masked_fill(~answer, IGNORE_INDEX)
            labels[0] = IGNORE_INDEX  # in a packed row, the token before it belongs to another sample
            encoded.append((ids[is_token], labels[is_token]))
        return encoded, batch

    def _lay_out(self, rows: Sequence[Sequence[tuple[Tensor, Tensor]]], packed: bool) -> dict[str, Any]:
        """Concatenate every row's samples. An empty row becomes one token of padding outside the loss."""
        pad = self.processor.tokenizer.pad_token_id
        empty = (torch.tensor([pad]), torch.tensor([IGNORE_INDEX]))
        rows = [row or [empty] for row in rows]

        def join(values: Iterable[Iterable[Tensor]], padding: int) -> Tensor:  # (B, L)
            return pad_sequence([torch.cat(list(row)) for row in values], batch_first=True, padding_value=padding)

        batch = {
            "input_ids": join(((ids for ids, _ in row) for row in rows), pad),
            "labels": join(((labels for _, labels in row) for row in rows), IGNORE_INDEX),
        }
        if packed:
            positions = join(((torch.arange(len(ids)) for ids, _ in row) for row in rows), 0)
            # with a cache, which the language model's configuration enables, transformers sees one sample per row
            return batch | {"position_ids": positions, "use_cache": False}
        return batch | {"attention_mask": join(((torch.ones_like(ids) for ids, _ in row) for row in rows), 0)}

    def _apply_template(self, samples: Sequence[Opened], padding_side: str, **kwargs: Any) -> dict[str, Any]:
        batch = encode(
            self.processor,
            [self._with_images(row, images) for row, images in samples],
            padding_side=padding_side,
            processor_options=self._image_options(samples) if any(images for _, images in samples) else None,
            **kwargs,
        )
        self._check_placeholders([row for row, _ in samples], batch)
        return dict(batch)

    def _image_options(self, samples: Sequence[Opened]) -> dict[str, Any]:
        """Return the processor's further inputs: a sample's region refers to its first image."""
        return {
            "regions": [
                row["region"] if number == 0 else None for row, images in samples for number in range(len(images))
            ]
        }

    def _with_images(self, row: Row, images: Sequence[Image.Image]) -> list[dict[str, Any]]:
        """Return the row's messages with the opened images inserted."""
        messages = json.loads(row["messages"])
        opened = iter(images)
        for message in messages:
            for part in message["content"]:
                if part["type"] == "image":
                    part["image"] = next(opened)
        return messages

    def _check_placeholders(self, rows: Sequence[Row], batch: Mapping[str, Any]) -> None:
        counts = (batch["input_ids"] == self.processor.image_token_id).sum(dim=1).tolist()  # (B,)
        for row, count, expected in zip(rows, counts, self._visual_tokens(rows, batch), strict=True):
            if count != expected:
                raise DataError(f"{row_name(row)}: {count} image placeholders, its images need {expected}")

    def _visual_tokens(self, rows: Sequence[Row], batch: Mapping[str, Any]) -> list[int]:
        """Count the visual tokens of each row's images together."""
        return [len(row["images"]) * self.processor.token_budget for row in rows]
