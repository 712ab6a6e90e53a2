"""Configure a LLaVA model whose visual tokens are compressed before the projector."""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, LlavaConfig

from .compressor import CompressorConfig

COMPRESSOR_KEYS = ("compressor_type", "token_budget", "region_ratio", "compressor_num_attention_heads")


@strict
class CropLlavaConfig(LlavaConfig):
    r"""Hold LLaVA's configuration and four keys of the compressor. ValueError as from `CompressorConfig`.

    Args:
        compressor_type: a registered type, see `crop_model.compressor`; `none` passes every visual token on.
        token_budget: visual tokens per image that reach the LLM. The type `none` ignores it.
        region_ratio: retention inside the region over retention outside, above 1.
        compressor_num_attention_heads: heads of the compressor's attention; divides the width of the vision features.
    """

    model_type = "crop_llava"

    compressor_type: str = "region_ratio"
    token_budget: int = 64
    region_ratio: float = 16.0
    compressor_num_attention_heads: int = 8

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        self.token_budget = self.image_seq_length = self.compressor_config.num_tokens

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """Set overrides before the checks of `__post_init__`; transformers would set them afterwards."""
        overrides = {key: kwargs.pop(key) for key in COMPRESSOR_KEYS if key in kwargs}
        return super().from_dict({**config_dict, **overrides}, **kwargs)

    @classmethod
    def get_config_dict(cls, pretrained_model_name_or_path, **kwargs):
        """Read a stored configuration, a plain LLaVA's too. ValueError for another model's."""
        stored, kwargs = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        model_type = stored.get("model_type", cls.model_type)
        if model_type not in (cls.model_type, LlavaConfig.model_type):
            raise ValueError(f"{pretrained_model_name_or_path}: a model of type {model_type!r}, not a LLaVA")
        return {**stored, "model_type": cls.model_type}, kwargs

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Return the rows and columns of one image's patches, without CLS."""
        side = self.vision_config.image_size // self.vision_config.patch_size
        return side, side

    @property
    def vision_feature_size(self) -> int:
        """Return the width of the features that the compressor reads: LLaVA may concatenate several layers."""
        layers = 1 if isinstance(self.vision_feature_layer, int) else len(self.vision_feature_layer)
        return self.vision_config.hidden_size * layers

    @property
    def compressor_config(self) -> CompressorConfig:
        """Return the compressor's configuration, checked."""
        return CompressorConfig.from_config(self)


AutoConfig.register(CropLlavaConfig.model_type, CropLlavaConfig, exist_ok=True)
