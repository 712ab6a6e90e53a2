"""Detectors of both real architectures, with random weights, small enough to build in a test."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    GroundingDinoProcessor,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessorPil,
    Owlv2Processor,
    PreTrainedTokenizerFast,
    SwinConfig,
)

from crop_model.localization.detected import ZeroShotLocalizer

WORDS = ["what", "is", "the", "dog", "doing", "frame", "red", "cat", "hat"]


def tokenizer(begin: int, end: int, marks: dict[str, int]) -> PreTrainedTokenizerFast:
    """Words and marks under numbers that the architectures give a meaning."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[BOS]": begin, "[EOS]": end, **marks}
    vocabulary |= {word: 10 + number for number, word in enumerate(WORDS)}
    taken = set(vocabulary.values())
    vocabulary |= {f"unused{number}": number for number in range(max(taken)) if number not in taken}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", begin), ("[EOS]", end)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]")
    fast.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return fast


def scattered(model: torch.nn.Module, head: str, spread: float) -> torch.nn.Module:
    """Weights so large that boxes are of all sizes, and none ends on a cell's edge."""
    for name, parameter in model.named_parameters():
        if head in name:
            torch.nn.init.normal_(parameter, std=spread)
        if "logit_" in name:  # OWLv2's, lest scores come too near 1 to be told apart
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval()


def grounding_dino() -> ZeroShotLocalizer:
    torch.manual_seed(0)
    config = GroundingDinoConfig(
        backbone_config=SwinConfig(
            image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
            out_features=["stage2", "stage3", "stage4"],
        ),
        text_config=BertConfig(
            vocab_size=1100, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
        ),
        d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=12, max_text_len=16,
    )  # fmt: skip
    images = GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96})
    processor = GroundingDinoProcessor(images, tokenizer(101, 102, {".": 1012, "?": 1029}))
    return ZeroShotLocalizer(scattered(GroundingDinoForObjectDetection(config), "bbox_embed", 0.2), processor)


def owlv2() -> ZeroShotLocalizer:
    torch.manual_seed(0)
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Owlv2Config(
        text_config={**layers, "vocab_size": 100, "max_position_embeddings": 8, "bos_token_id": 98, "eos_token_id": 99},
        vision_config={**layers, "image_size": 64, "patch_size": 16},
        projection_dim=16,
    )
    processor = Owlv2Processor(Owlv2ImageProcessorPil(size={"height": 64, "width": 64}), tokenizer(98, 99, {".": 50}))
    processor.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return ZeroShotLocalizer(scattered(Owlv2ForObjectDetection(config), "box_head", 0.3), processor)


MAKERS = {"grounding-dino": grounding_dino, "owlv2": owlv2}
