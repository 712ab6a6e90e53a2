"""LLaVA-1.5's sizes, for benchmarks that need no weights of it."""

from transformers import CLIPVisionConfig, LlamaConfig

from crop_model.configuration_crop_llava import CropLlavaConfig

PATCHES, VOCABULARY = 576, 32064
LANGUAGE_MODELS = {"7b": (4096, 11008, 32), "13b": (5120, 13824, 40)}  # width, FFN width, layers; heads of 128


def vision_config() -> CLIPVisionConfig:
    """CLIP ViT-L/14 at 336 pixels."""
    return CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
    )


def text_config(size: str) -> LlamaConfig:
    """Vicuna's, "7b" or "13b"."""
    width, ffn_width, layers = LANGUAGE_MODELS[size]
    return LlamaConfig(
        hidden_size=width,
        intermediate_size=ffn_width,
        num_hidden_layers=layers,
        num_attention_heads=width // 128,
        num_key_value_heads=width // 128,
        vocab_size=VOCABULARY,
        max_position_embeddings=4096,
    )


def llava_config(size: str = "7b", compressor_type: str = "none", budget: int = PATCHES) -> CropLlavaConfig:
    """LLaVA-1.5 of that size with `budget` visual tokens an image."""
    return CropLlavaConfig(
        vision_config=vision_config(),
        text_config=text_config(size),
        compressor_type=compressor_type,
        token_budget=budget,
    )
