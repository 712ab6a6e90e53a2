"""The localizer's cost by formula, against torch's own counter on real models that localize."""

import runpy
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from crop_model.cost.localizer import LocalizerShape
from crop_model.generation.prompts import conversations
from crop_model.localization.generated import Localizer
from crop_model.localization.grid_box import GridBoxProcessor
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.processing_crop_llava import CropLlavaProcessor
from tests.benchmarks.localization_of_questions import localize, shape_of_qwen2_vl
from tests.crop_model.cost.test_model import tiny_config

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
DEMO = Path(__file__).parents[3] / "configs" / "demo_base"
TEXT, PLACES = 7, (1, 3, 6, 8)


def qwen2_vl_2b(height: int = 336, width: int = 336) -> LocalizerShape:
    sizes = {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "vocab_size": 151936}
    text = {**sizes, "num_attention_heads": 12, "num_key_value_heads": 2}
    vision = {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14}
    return shape_of_qwen2_vl(Qwen2VLConfig(text_config=text, vision_config=vision), height, width)


def test_a_qwen2_vl_costs_what_torch_counts(tiny_qwen2_vl: Path) -> None:
    config = Qwen2VLConfig.from_pretrained(tiny_qwen2_vl)
    config.vision_config.embed_dim, config.vision_config.mlp_ratio = 16, 3  # no two sizes alike
    config._attn_implementation = "eager"  # torch does not count its fused attention on CPUs
    localizer = Localizer(Qwen2VLForConditionalGeneration(config).eval(), Localizer.load_processor(str(tiny_qwen2_vl)))
    image, question = Image.new("RGB", (24, 16)), "where ?"
    prompt = localizer.processor.apply_chat_template(
        conversations([image], [question])[0], tokenize=True, add_generation_prompt=True, return_dict=True
    )
    shape = shape_of_qwen2_vl(localizer.model.config, *(4 * n for n in prompt["image_grid_thw"][0][1:]))
    text = len(prompt["input_ids"][0]) - shape.visual_tokens
    places = GridBoxProcessor(localizer.processor.tokenizer, 0).positions
    with (
        FlopCounterMode(display=False) as counter,
        mock.patch.object(localizer.model, "generate", wraps=localizer.model.generate) as generate,
    ):
        localizer.predict([image], [question])
    assert counter.get_total_flops() // 2 == shape.localize(text, places).total
    cache = generate.call_args.kwargs["past_key_values"]  # that of the last call, filled by it
    held = sum(states.nbytes for layer in cache.layers for states in (layer.keys, layer.values))
    assert held == shape.language_model.kv_bytes(shape.visual_tokens + text + places[-1], bytes_per_value=4)


def test_the_localizer_of_this_project_costs_what_torch_counts() -> None:
    options = {"compressor_type": "none", "token_budget": 256, "attn_implementation": "eager"}
    model = CropLlavaForConditionalGeneration.from_pretrained(DEMO, **options).eval()
    processor = CropLlavaProcessor.from_pretrained(DEMO, token_budget=256)
    question = "Which digit is at B3?"
    image = Image.new("RGB", (128, 128))
    with FlopCounterMode(display=False) as counter:
        Localizer(model, processor).predict([image], [question])
    content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, add_generation_prompt=True, return_dict=True
    )
    text = len(prompt["input_ids"][0]) - 256
    places = GridBoxProcessor(processor.tokenizer, 0).positions
    assert counter.get_total_flops() // 2 == LocalizerShape.from_llava(model.config).localize(text, places).total


def test_a_cache_kept_is_what_torch_counts() -> None:
    config = tiny_config("none")
    config._attn_implementation = "eager"
    model = CropLlavaForConditionalGeneration(config).eval()
    shape = LocalizerShape.from_llava(config)
    with torch.no_grad():
        image = torch.full((1, shape.visual_tokens), 99)
        cache = model(input_ids=image, pixel_values=torch.randn(1, 3, 48, 48), use_cache=True).past_key_values
        with FlopCounterMode(display=False) as counter:
            model(input_ids=torch.full((1, TEXT), 5), past_key_values=cache, logits_to_keep=1)
            for tokens in (1, 2, 3, 2):  # PLACES: one before the first index, then an index and what follows it
                model(input_ids=torch.full((1, tokens), 5), past_key_values=cache, logits_to_keep=1)
    assert counter.get_total_flops() // 2 == localize(shape, TEXT, PLACES, "cache").total


def test_what_is_kept_is_not_paid_again() -> None:
    shape = qwen2_vl_2b()
    nothing, image, cache = (localize(shape, 40, reused=reused) for reused in ("nothing", "image", "cache"))
    assert nothing.total - image.total == shape.image_macs == nothing.image
    assert image.decoding == cache.decoding and image.prefill > 2 * cache.prefill


def test_qwen2_vl_2b_is_of_the_known_size() -> None:
    """1.54 B weights beside the embedding's (Qwen2 report: 1.5B; 1.31 B without), 675 M in the tower, 144 tokens."""
    shape = qwen2_vl_2b()
    assert shape.visual_tokens == 144
    assert shape.language_model.linear_macs(1) == pytest.approx(1.31e9, rel=0.01)
    assert localize(shape, 60).flops == pytest.approx(1.4e12, rel=0.1)
    larger = qwen2_vl_2b(672, 672)
    assert larger.visual_tokens == 576 and larger.image_macs > 4 * shape.image_macs


def test_sides_that_the_processor_does_not_make_are_refused() -> None:
    with pytest.raises(ValueError, match="image of 336 x 350: its sides are no multiples of 28"):
        qwen2_vl_2b(350, 336)


def test_the_tables_of_the_documentation_are_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    docs = Path(__file__).parents[3] / "docs"
    monkeypatch.syspath_prepend(SCRIPTS)  # as it is when the script is started
    runpy.run_path(str(SCRIPTS / "localization_cost.py"), run_name="__main__")
    page = (docs / "cost.md").read_text()
    tables = [part for part in capsys.readouterr().out.split("\n\n") if part.startswith("|")]
    assert len(tables) == 3 and all(table in page for table in tables)


def test_the_table_of_methods_is_what_the_command_prints(monkeypatch: pytest.MonkeyPatch) -> None:
    docs = Path(__file__).parents[3] / "docs"
    monkeypatch.syspath_prepend(SCRIPTS)
    assert runpy.run_path(str(SCRIPTS / "cost_plots.py"))["table"]() in (docs / "cost.md").read_text()
