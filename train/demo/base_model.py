"""Build the demo's base model before its training: small, plain transformers classes in the llava-hf format.

It has a CLIP vision tower of 3 layers on 16x16 patches, a projector of two layers, a Llama of 3 layers and a word-level
tokenizer: 1.3 M parameters.
"""

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from data_prep.boards.scenes import CELL_NAMES, COLOURS

IMAGE_SIDE, PATCH_SIDE = 128, 8
GRID = IMAGE_SIDE // PATCH_SIDE  # 16 patches per side, 2 per cell
HIDDEN = 128
ROPE_THETA = 1e7  # at 1e4, most of a head's dimensions rotate too fast to match equal content 256 tokens away

# The words that a visual token learns to name.
PATCH_WORDS = (*"0123456789", *CELL_NAMES, *COLOURS, "panel")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% else %}ASSISTANT: {% endif %}"
    "{% if message['content'] is string %}{% set text = message['content'] %}"
    "{% else %}{% set parts = namespace(text='') %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{% set parts.text = parts.text + '<image>\n' %}"
    "{% else %}{% set parts.text = parts.text + part['text'] %}{% endif %}"
    "{% endfor %}{% set text = parts.text %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ text }} "
    "{% else %}{% generation %}{{ text }}{{ eos_token }}{% endgeneration %}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def build_processor() -> LlavaProcessor:
    """Build the demo's processor, whose tokenizer knows the questions' words."""
    words = (
        "USER ASSISTANT : , . ? yes no Which Add How Is any at and are dark digit digits frame frames in is larger "
        "many on or the there"
    )
    vocabulary = [*words.split(), *[str(number) for number in range(19)], *PATCH_WORDS]
    return word_level_processor(vocabulary, IMAGE_SIDE, PATCH_SIDE, CHAT_TEMPLATE)


def word_level_processor(words: Sequence[str], image_side: int, patch_side: int, chat_template: str) -> LlavaProcessor:
    """Build a LLaVA-1.5 processor: a tokenizer of these words, CLIP's image processing with pad-to-square, a prompt."""
    vocabulary = ["<pad>", "<s>", "</s>", "<unk>", "<image>", *words]
    ids = {word: index for index, word in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", ids["<s>"])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        padding_side="left",
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
    )
    side = {"height": image_side, "width": image_side}
    return LlavaProcessor(
        LlavaImageProcessorPil(do_pad=True, size={"shortest_edge": image_side}, crop_size=side),
        fast,
        patch_size=patch_side,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template,
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    """Build the model with initial weights that speed up its training."""
    vision = CLIPVisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=IMAGE_SIDE,
        patch_size=PATCH_SIDE,
        projection_dim=HIDDEN,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        image_seq_length=GRID * GRID,
    )
    model = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        for layer in model.model.vision_tower.encoder.layers:
            _let_like_attend_to_like(layer.self_attn, heads_share=1.0, gain=1.2)
        for layer in model.model.language_model.layers:
            attention = layer.self_attn
            _let_like_attend_to_like(attention, heads_share=0.5, gain=2.0)
            torch.nn.init.orthogonal_(attention.v_proj.weight)
            attention.o_proj.weight.copy_(attention.v_proj.weight.T)
        torch.nn.init.normal_(model.get_input_embeddings().weight, std=0.1)
        model.model.vision_tower.embeddings.position_embedding.weight[1:] = grid_waves()
    return model


def _let_like_attend_to_like(attention: Any, heads_share: float, gain: float) -> None:
    """Start a share of the heads with equal queries and keys; the others attend about evenly.

    With all heads alike, every word would attend to itself: an answer could not find the word that names its cell.
    """
    torch.nn.init.orthogonal_(attention.q_proj.weight, gain=gain)
    attention.k_proj.weight.copy_(attention.q_proj.weight)
    for projection in (attention.q_proj, attention.k_proj):
        torch.nn.init.normal_(projection.weight[round(heads_share * HIDDEN) :], std=0.05)


def grid_waves() -> torch.Tensor:
    """Compute sines and cosines of a patch's row and column, (GRID * GRID, HIDDEN), wave lengths 4 to 64 patches."""
    frequency = 2 * torch.pi / 4 * 16 ** -torch.linspace(0, 1, HIDDEN // 4)
    angle = torch.arange(GRID)[:, None] * frequency  # (GRID, HIDDEN / 4)
    waves = 0.3 * torch.cat([angle.sin(), angle.cos()], dim=-1)  # (GRID, HIDDEN / 2)
    rows, columns = waves[:, None].expand(GRID, GRID, -1), waves[None].expand(GRID, GRID, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)
