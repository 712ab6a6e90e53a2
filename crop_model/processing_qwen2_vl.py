"""Process images and text for Qwen2-VL with Pillow alone.

transformers' own processor has a video processor, which needs torchvision. This one needs none, and its pixels do not
depend on whether torchvision is installed.

    image ─► sides a multiple of 28, min_pixels..max_pixels in all ─► patches of 14x14 pixels ─► a token for 2x2 of them
"""

from typing import Any

from transformers import ProcessorMixin, Qwen2VLImageProcessorPil

IMAGE_TOKEN = "<|image_pad|>"


class Qwen2VLImageTextProcessor(ProcessorMixin):
    """Prepare text and images.

    Args:
        image_processor: of a Qwen2-VL checkpoint; the Pillow variant gets its settings.
        tokenizer: with Qwen2-VL's special tokens.
        chat_template: Jinja text.
        min_pixels, max_pixels: limits for a resized image, at least one token's pixels; None: as stored.

    Raises:
        ValueError: pixels out of order, an image processor of another model, a tokenizer without the placeholder.
    """

    return_mm_token_type_ids = True  # from them the model derives its positions

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        chat_template: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
    ):
        self.image_token = IMAGE_TOKEN
        self.image_token_id = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        if self.image_token_id in (None, tokenizer.unk_token_id):
            raise ValueError(f"tokenizer: it does not know {IMAGE_TOKEN}")
        super().__init__(_with_pillow(image_processor, min_pixels, max_pixels), tokenizer, chat_template=chat_template)

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *args: Any,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        **kwargs: Any,
    ) -> "Qwen2VLImageTextProcessor":
        """Load without the pixels, which the tokenizer would store and pass to every call."""
        stored = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        return cls(stored.image_processor, stored.tokenizer, stored.chat_template, min_pixels, max_pixels)

    @property
    def token_budget(self) -> int:
        """Return the largest number of visual tokens per image; a strip of extreme aspect may cost a few more."""
        return self.image_processor.size["longest_edge"] // _pixels_of_a_token(self.image_processor)

    @property
    def model_input_names(self) -> list[str]:
        return [*super().model_input_names, "mm_token_type_ids"]

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs: Any) -> str:
        return self.image_token * (
            image_inputs["image_grid_thw"][image_idx].prod() // self.image_processor.merge_size**2
        )


def _with_pillow(image_processor: Any, min_pixels: int | None, max_pixels: int | None) -> Qwen2VLImageProcessorPil:
    name = type(image_processor).__name__.removesuffix("Pil").removesuffix("Fast")
    if name != "Qwen2VLImageProcessor":
        raise ValueError(f"image_processor: {type(image_processor).__name__} is not Qwen2-VL's")
    settings = image_processor.to_dict() | {"image_processor_type": "Qwen2VLImageProcessorPil"}
    given = Qwen2VLImageProcessorPil.from_dict(settings | {"min_pixels": min_pixels, "max_pixels": max_pixels})
    smallest, largest = given.size["shortest_edge"], given.size["longest_edge"]
    if not _pixels_of_a_token(given) <= smallest <= largest:
        raise ValueError(
            f"min_pixels: {smallest} is outside {_pixels_of_a_token(given)}..{largest}, a token's and max_pixels"
        )
    return given


def _pixels_of_a_token(image_processor: Qwen2VLImageProcessorPil) -> int:
    return (image_processor.patch_size * image_processor.merge_size) ** 2
