"""Readers of public data sets, one a file, and the names they are chosen by."""

from .base import Source
from .llava_mix import LlavaMix
from .visual_cot import VisualCot

SOURCES: dict[str, type[Source]] = {
    "llava_mix": LlavaMix,
    "visual_cot": VisualCot,
}
