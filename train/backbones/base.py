"""What of a training depends on the family of its model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from train.data.collator import Collator


@dataclass(frozen=True)
class Parts:
    """What of a run depends on the kind of its model."""

    processor: Any
    collator: type[Collator]
    build: Callable[[], nn.Module]  # called when the samples are read and checked


Kind = Callable[[Any, Any], Parts]  # of ModelArguments and PlcTrainingArguments
