"""LLaVA-1.5's sizes, for benchmarks that need no weights of it."""

from transformers import CLIPVisionConfig, LlamaConfig

from crop_model.configuration_crop_llava import CropLlavaConfig

PATCHES, VOCABULARY = 576, 32064
LANGUAGE_MODELS = {"7b": (4096, 11008, 32), "13b": (5120, 13824, 40)}  # width, FFN width, layers; heads of 128


def vision_config(width: int = 1024, layers: int = 24) -> CLIPVisionConfig:
    """Return the sizes of CLIP ViT-L/14 at 336 pixels, or of a smaller tower on the same patches; heads of 64."""
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        image_size=336,
        patch_size=14,
    )


def text_config(
    width: int, ffn_width: int, layers: int, head_width: int = 128, vocabulary: int = VOCABULARY
) -> LlamaConfig:
    """Return the sizes of a Llama, such as one of LANGUAGE_MODELS."""
    return LlamaConfig(
        hidden_size=width,
        intermediate_size=ffn_width,
        num_hidden_layers=layers,
        num_attention_heads=width // head_width,
        num_key_value_heads=width // head_width,
        vocab_size=vocabulary,
        max_position_embeddings=4096,
    )


def llava_config(size: str = "7b", compressor_type: str = "none", budget: int = PATCHES) -> CropLlavaConfig:
    """Return LLaVA-1.5 of that size with `budget` visual tokens per image."""
    return CropLlavaConfig(
        vision_config=vision_config(),
        text_config=text_config(*LANGUAGE_MODELS[size]),
        compressor_type=compressor_type,
        token_budget=budget,
    )
