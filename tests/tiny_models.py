"""Build tiny models of the real architectures, with random weights, in a second each."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    CLIPVisionConfig,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessorPil,
    GroundingDinoProcessor,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessorPil,
    Owlv2Processor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    SwinConfig,
)

from crop_model.localization.detected import ZeroShotLocalizer
from train.demo.base_model import word_level_processor

IMAGE_SIDE, PATCH_SIDE = 32, 4  # 8x8 patches
WORDS = "USER ASSISTANT : , . ? what is the colour shape digit here there of and how many red green blue square round"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: "
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }} {% endif %}{% endfor %}"
    "{% else %}ASSISTANT: {% generation %}"
    "{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{{ eos_token }}{% endgeneration %} "
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def save_llava(folder: Path) -> None:
    """Save model, processor and chat template: CLIP of 2 layers on 8x8 patches, Llama of 2 layers."""
    words = [*WORDS.split(), *[str(number) for number in range(20)]]
    processor = word_level_processor(words, IMAGE_SIDE, PATCH_SIDE, CHAT_TEMPLATE)
    processor.save_pretrained(folder)
    tokenizer = processor.tokenizer
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=IMAGE_SIDE,
            patch_size=PATCH_SIDE,
            initializer_range=0.1,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=512,
            initializer_range=0.1,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)


QWEN_TOKENS = ("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
QWEN_TEMPLATE = (  # no {% generation %}, as the checkpoint's own has none
    "{% for message in messages %}"
    "{% if loop.first %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def save_qwen2_vl(folder: Path) -> None:
    """Save a Qwen2-VL as the Hub has it: 2 vision blocks on patches of 4 pixels, 2 decoder layers, tied head."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[]))
    digits = pre_tokenizers.Digits(individual_digits=True)
    bytewise.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(False, use_regex=False)])
    bytewise.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytewise,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(QWEN_TOKENS),
    )
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in QWEN_TOKENS}
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": QWEN_TEMPLATE}))
    Qwen2VLImageProcessorPil(patch_size=4).save_pretrained(folder)
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    del settings["size"]
    pixels = {"min_pixels": 256, "max_pixels": 1024}  # 4 to 16 tokens of 8x8 pixels
    (folder / "preprocessor_config.json").write_text(json.dumps(settings | pixels))
    config = Qwen2VLConfig(
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 4},
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "max_position_embeddings": 512,
            "initializer_range": 0.4,  # logits that can tell letters apart, though the head stays as it is
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]},
            "bos_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)


DETECTOR_WORDS = ["what", "is", "the", "dog", "doing", "frame", "red", "cat", "hat"]


def detector_tokenizer(begin: int, end: int, marks: dict[str, int]) -> PreTrainedTokenizerFast:
    """Words and marks under numbers that the architectures give a meaning."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "[BOS]": begin, "[EOS]": end, **marks}
    vocabulary |= {word: 10 + number for number, word in enumerate(DETECTOR_WORDS)}
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
    """Build a localizer around Grounding DINO."""
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
    processor = GroundingDinoProcessor(images, detector_tokenizer(101, 102, {".": 1012, "?": 1029}))
    return ZeroShotLocalizer(scattered(GroundingDinoForObjectDetection(config), "bbox_embed", 0.2), processor)


def owlv2() -> ZeroShotLocalizer:
    """Build a localizer around OWLv2."""
    torch.manual_seed(0)
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Owlv2Config(
        text_config={**layers, "vocab_size": 100, "max_position_embeddings": 8, "bos_token_id": 98, "eos_token_id": 99},
        vision_config={**layers, "image_size": 64, "patch_size": 16},
        projection_dim=16,
    )
    processor = Owlv2Processor(
        Owlv2ImageProcessorPil(size={"height": 64, "width": 64}), detector_tokenizer(98, 99, {".": 50})
    )
    processor.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return ZeroShotLocalizer(scattered(Owlv2ForObjectDetection(config), "box_head", 0.3), processor)


DETECTOR_MAKERS = {"grounding-dino": grounding_dino, "owlv2": owlv2}
