"""What the benchmarks of operations share: a LLaVA of 576 patches, bound by arithmetic, and questions.

The vision tower is small beside the language model, as in LLaVA-1.5. The weights are random.
"""

import torch
from llava_sizes import text_config, vision_config

from crop_model.configuration_crop_llava import CropLlavaConfig

SIDE, IMAGE_TOKEN, VOCABULARY = 24, 3, 2048
FULL = SIDE * SIDE


def configuration(budget: int, width: int, ffn_width: int, layers: int) -> CropLlavaConfig:
    """With `budget` visual tokens an image, all 576 of them meaning no compressor; an LLM with heads of 64."""
    return CropLlavaConfig(
        compressor_type="none" if budget == FULL else "region_ratio",
        token_budget=budget,
        vision_config=vision_config(512, 2),
        text_config=text_config(width, ffn_width, layers, 64, VOCABULARY),
        image_token_id=IMAGE_TOKEN,
    )


def questions(
    visual_tokens: int, text_tokens: int, samples: int = 1, image_token: int = IMAGE_TOKEN
) -> dict[str, torch.Tensor]:
    """The same images, region and texts at every budget; the texts stand behind the images."""
    generator = torch.Generator().manual_seed(1)
    text = torch.randint(4, VOCABULARY, (samples, text_tokens), generator=generator)
    mask = torch.zeros(samples, SIDE, SIDE, dtype=torch.bool)
    mask[:, 6:12, 9:15] = True
    return {
        "input_ids": torch.cat([torch.full((samples, visual_tokens), image_token), text], dim=1),
        "pixel_values": torch.randn(samples, 3, 336, 336, generator=generator),
        "region_mask": mask.flatten(1),
    }
