"""The keys that name the samples and how they are read."""

from dataclasses import dataclass

from data_prep.common.fill import key
from data_prep.files.images import MAX_IMAGE_PIXELS
from data_prep.schema.data_source import DataSource


@dataclass
class DataArguments:
    """Choose the samples and how they are read."""

    eval_data: list[DataSource] = key(list, "Like train_data; the held-out data of the evaluation during training.")
    train_data: list[DataSource] = key(
        list, "A list of {annotations, image_root, regions, weight}; the last three may be left out."
    )
    max_length: int = key(
        2048, "The longest sample in tokens, with visual tokens. A longer one is an error: nothing is truncated."
    )
    max_image_pixels: int = key(
        MAX_IMAGE_PIXELS, "The largest image that is decoded, in pixels; Pillow's own limit for a warning."
    )
