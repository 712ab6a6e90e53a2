"""What tests of several packages share: a LLaVA in llava-hf format, built, trained and saved in a second."""

import json
from collections.abc import Iterator
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from hypothesis import settings
from peft import LoraConfig
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from data_prep.schema.sample import RegionAnnotation, sample_id, write_regions

settings.register_profile("untimed", deadline=None)  # how fast an example runs is the machine's affair
settings.load_profile("untimed")

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


def _tokenizer() -> PreTrainedTokenizerFast:
    words = ["<pad>", "<s>", "</s>", "<unk>", "<image>", *WORDS.split(), *[str(number) for number in range(20)]]
    ids = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", ids["<s>"])])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        padding_side="left",
    )


@pytest.fixture(scope="session", autouse=True)
def sample_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tables of samples are cached in a folder of the tests' own, by launched processes too."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(folder))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        yield folder


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model, processor and chat template: CLIP of 2 layers on 8x8 patches, Llama of 2 layers."""
    folder = tmp_path_factory.mktemp("tiny") / "llava"
    tokenizer = _tokenizer()
    side = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    LlavaProcessor(
        LlavaImageProcessorPil(do_pad=True, size={"shortest_edge": IMAGE_SIDE}, crop_size=side),
        tokenizer,
        patch_size=PATCH_SIDE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
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
    return folder


QUESTIONS = (
    "what is the digit ?",
    "what is the colour of the square here ?",
    "how many red ?",
    "what shape is there ?",
)
ANSWERS = ("7", "blue and green", "3 of 12", "round")


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 16 questions about 16 images of several sizes: data.json (LLaVA), images/, regions/toy.

    Every third question has no region.
    """
    folder = tmp_path_factory.mktemp("toy")
    (folder / "images").mkdir()
    records, annotations = [], []
    random = np.random.default_rng(0)
    for number in range(16):
        width, height = 40 + 3 * number, 64 - 2 * number
        name, question = f"{number}.png", QUESTIONS[number % 4]
        pixels = random.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        asked = {"from": "human", "value": f"<image>\n{question}", "type": question.split()[0]}
        records.append(
            {"id": number, "image": name, "conversations": [asked, {"from": "gpt", "value": ANSWERS[number % 4]}]}
        )
        box = None if number % 3 == 2 else (number, 2.0, number + 20.0, 18.0)
        boxes = [] if box is None else [box]
        key = sample_id("toy", name, 0, question)
        annotations.append(RegionAnnotation(key, "toy", name, 0, question, width, height, boxes, box, "human"))
    (folder / "data.json").write_text(json.dumps(records))
    write_regions(folder / "regions" / "toy", annotations, {})
    return folder


@pytest.fixture(scope="session")
def tiny_crop_llava(tiny_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_llava` with a compressor of 16 tokens whose weights are all drawn at random, saved whole."""
    from train.backbones.checkpoint import Checkpoint  # here: it takes seconds, and not every package's tests need it

    folder = tmp_path_factory.mktemp("tiny") / "crop"
    checkpoint = Checkpoint.open(tiny_llava, token_budget=16, compressor_num_attention_heads=4)
    model, processor = checkpoint.model(), checkpoint.processor()
    torch.manual_seed(1)
    for parameter in model.model.compressor.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def lora_checkpoint(tiny_crop_llava: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter, compressor and projector with random weights, saved as the Trainer saves them."""
    from train.backbones.base import LANGUAGE_MODEL_LINEARS  # here: as above
    from train.backbones.checkpoint import Checkpoint

    folder = tmp_path_factory.mktemp("run") / "final"
    checkpoint = Checkpoint.open(tiny_crop_llava)
    lora = LoraConfig(r=4, target_modules=LANGUAGE_MODEL_LINEARS)
    model = checkpoint.trainable(("compressor", "projector"), lora)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    model.config.save_pretrained(folder)
    checkpoint.processor().save_pretrained(folder)
    return folder


@pytest.fixture
def plc_words(training_words: list[str], tmp_path: Path) -> list[str]:
    """`training_words` for a run in a folder of the test's own."""
    return [*training_words, f"output_dir={tmp_path / 'run'}"]


@pytest.fixture(scope="session")
def training_words(tiny_crop_llava: Path, toy_data: Path) -> list[str]:
    """The words of a call of `train.plc` that trains LoRA, compressor and projector for two steps, but `output_dir`."""
    source = {
        "annotations": str(toy_data / "data.json"),
        "image_root": str(toy_data / "images"),
        "regions": str(toy_data / "regions" / "toy"),
    }
    return [
        f"model={tiny_crop_llava}",
        "token_budget=16",
        "compressor_num_attention_heads=4",
        "lora={r: 4, lora_alpha: 8}",
        f"train_data=[{json.dumps(source)}]",
        f"eval_data=[{json.dumps(source)}]",
        "max_steps=2",
        "per_device_train_batch_size=4",
        "learning_rate=1e-2",
        "compressor_learning_rate=2e-2",
        "projector_learning_rate=3e-2",
        "weight_decay=0.01",
        "logging_steps=1",
        "save_strategy=no",
        "report_to=none",
        "use_cpu=true",
        "disable_tqdm=true",
    ]


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


@pytest.fixture(scope="session")
def tiny_qwen2_vl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as the Hub's Qwen2-VL: 2 vision blocks on patches of 4 pixels, 2 decoder layers, tied head."""
    folder = tmp_path_factory.mktemp("tiny") / "qwen2_vl"
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
    return folder
