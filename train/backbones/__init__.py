"""Families of visual-language models, one per file, and the model types that choose them."""

from .base import Backbone
from .llava import Llava
from .qwen2_vl import Qwen2VL

BACKBONES: dict[str, Backbone] = {
    model_type: backbone for backbone in (Llava(), Qwen2VL()) for model_type in backbone.model_types
}
