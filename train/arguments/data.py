"""The keys that name the samples and how they are read."""

from dataclasses import dataclass, field

from data_prep.schema.data_source import DataSource


@dataclass
class DataArguments:
    """The samples, and how they are read."""

    eval_data: list[DataSource] = field(
        default_factory=list, metadata={"help": "As train_data; held out, for the evaluation during training."}
    )
    train_data: list[DataSource] = field(
        default_factory=list,
        metadata={"help": "List of {annotations, image_root, regions, weight}; the last two may be left out."},
    )
    max_length: int = field(
        default=2048,
        metadata={
            "help": "Longest sample in tokens, visual tokens included. A longer one is an error: nothing is truncated."
        },
    )
    max_image_pixels: int = field(
        default=89_478_485,
        metadata={"help": "Larger images are refused before they are decoded (Pillow's own warning limit)."},
    )
