"""The LLaVA subclass: loads llava-hf checkpoints whole, compresses in forward and generate, keeps ranks in step."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping

from crop_model.modeling_crop_llava import COMPRESSOR_PREFIX, CropLlavaForConditionalGeneration
from crop_model.processing_crop_llava import CropLlavaProcessor

BUDGET = 9


def random_images(count: int, size=(40, 30)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for _ in range(count)]


@pytest.fixture(scope="module")
def processor(tiny_llava: Path) -> CropLlavaProcessor:
    return CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=BUDGET)


@pytest.fixture(scope="module")
def model(tiny_llava: Path) -> CropLlavaForConditionalGeneration:
    torch.manual_seed(0)
    return CropLlavaForConditionalGeneration.from_pretrained(
        tiny_llava, token_budget=BUDGET, compressor_num_attention_heads=2
    ).eval()


def batch(processor, texts: list[str], regions: list, side: str = "left"):
    images = random_images(sum(text.count("<image>") for text in texts)) or None
    return processor(images=images, text=texts, regions=regions, padding=True, padding_side=side, return_tensors="pt")


def test_llava_checkpoint_loads_whole(tiny_llava: Path, model):
    stored = load_file(tiny_llava / "model.safetensors")
    assert any(key.startswith("language_model.") for key in stored), "the fixture must carry llava-hf's own key names"
    plain = LlavaForConditionalGeneration.from_pretrained(tiny_llava).state_dict()
    ours = model.state_dict()
    assert {key for key in ours if key not in plain} == {key for key in ours if key.startswith(COMPRESSOR_PREFIX)}
    for key, tensor in plain.items():
        torch.testing.assert_close(ours[key], tensor, rtol=0, atol=0)


def test_without_key_conversion_loading_is_an_error(tiny_llava: Path):
    names = ("crop_llava", "CropLlavaModel")
    mappings = {name: get_checkpoint_conversion_mapping(name) for name in names}
    try:
        for name in names:
            register_checkpoint_conversion_mapping(name, [], overwrite=True)
        with pytest.raises(ValueError, match=r"weights are missing, the first is"):
            CropLlavaForConditionalGeneration.from_pretrained(tiny_llava, token_budget=BUDGET)
    finally:
        for name, mapping in mappings.items():
            register_checkpoint_conversion_mapping(name, mapping, overwrite=True)


@pytest.mark.parametrize("edit, problem", [("drop", "missing"), ("add", "unexpected"), ("reshape", "of another shape")])
def test_damaged_checkpoint_is_an_error(tiny_llava: Path, tmp_path: Path, edit: str, problem: str):
    tensors = load_file(tiny_llava / "model.safetensors")
    name = next(key for key in tensors if "multi_modal_projector" in key and key.endswith("linear_1.weight"))
    if edit == "drop":
        del tensors[name]
    elif edit == "add":
        tensors["multi_modal_projector.linear_3.weight"] = torch.ones(2)
    else:
        tensors[name] = tensors[name][:1].clone()
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((tiny_llava / "config.json").read_text())
    with pytest.raises(ValueError, match=f"1 weights are {problem}, the first is .*multi_modal_projector"):
        CropLlavaForConditionalGeneration.from_pretrained(tmp_path, token_budget=BUDGET)


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What `transformers.modeling_utils` logs: the root logger, which caplog reads, does not get it."""
    messages, logger = list[str](), logging.getLogger("transformers.modeling_utils")
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger.addHandler(handler)
    yield messages
    logger.removeHandler(handler)


def test_a_new_compressor_is_not_reported_as_a_loss(tiny_llava: Path, model, tmp_path: Path, logged: list[str]):
    """What else there is to report is still logged: dropped weights, other warnings, and what makes loading fail."""
    CropLlavaForConditionalGeneration.from_pretrained(tiny_llava, token_budget=BUDGET)
    assert logged == []
    logging.getLogger("transformers.modeling_utils").warning("something else")
    assert logged == ["something else"]
    model.save_pretrained(tmp_path)
    CropLlavaForConditionalGeneration.from_pretrained(tmp_path)
    assert len(logged) == 1
    CropLlavaForConditionalGeneration.from_pretrained(tmp_path, compressor_type="none")
    assert "UNEXPECTED" in logged.pop() and len(logged) == 1
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[next(key for key in tensors if "linear_1.weight" in key)]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="missing"):
        CropLlavaForConditionalGeneration.from_pretrained(tmp_path)
    assert "MISSING" in logged.pop() and len(logged) == 1


def test_save_and_load_again(model, tmp_path: Path):
    with torch.no_grad():
        for parameter in model.model.compressor.parameters():
            parameter.add_(torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "crop_llava"
    again = CropLlavaForConditionalGeneration.from_pretrained(tmp_path)
    for key, tensor in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], tensor, rtol=0, atol=0)


def test_checkpoint_without_its_compressor_weights_is_an_error(model, tmp_path: Path):
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {key: value for key, value in tensors.items() if "compressor" not in key}
    assert len(kept) < len(tensors)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="missing"):
        CropLlavaForConditionalGeneration.from_pretrained(tmp_path)


def test_no_compressor_equals_llava(tiny_llava: Path):
    ours = CropLlavaForConditionalGeneration.from_pretrained(tiny_llava, compressor_type="none").eval()
    plain = LlavaForConditionalGeneration.from_pretrained(tiny_llava).eval()
    processor = CropLlavaProcessor.from_pretrained(tiny_llava)
    inputs = batch(processor, ["USER: <image>\nwhat ASSISTANT:"], [[0, 0, 20, 20]])
    with torch.no_grad():
        expected = plain(**{key: value for key, value in inputs.items() if key != "region_mask"}).logits
        torch.testing.assert_close(ours(**inputs).logits, expected)


def test_placeholders_are_the_budget(processor, model):
    inputs = batch(
        processor, ["USER: <image>\nwhat <image> ASSISTANT:", "USER: hello ASSISTANT:"], [None, [0, 0, 9, 9]]
    )
    assert (inputs["input_ids"] == model.config.image_token_id).sum(dim=1).tolist() == [2 * BUDGET, 0]
    model(**inputs)
    inputs["input_ids"][0, inputs["input_ids"][0].tolist().index(model.config.image_token_id)] = 1
    with pytest.raises(ValueError, match="do not match"):
        model(**inputs)


def test_region_changes_the_answer(processor, model):
    text = ["USER: <image>\nwhat ASSISTANT:"]
    with torch.no_grad():
        logits = [model(**batch(processor, text, [region])).logits for region in ([0, 0, 8, 8], [25, 30, 30, 40], None)]
    assert (logits[0] - logits[1]).abs().max() > 1e-4
    assert (logits[0] - logits[2]).abs().max() > 1e-4


def mixed_batch(processor):
    """Two images, none, one image; known and unknown regions; rows of different length."""
    texts = [
        "USER: <image>\nwhat is <image> this ASSISTANT:",
        "USER: hello ASSISTANT:",
        "USER: <image>\nwhat ASSISTANT:",
    ]
    return texts, [[0, 0, 8, 8], None, [10, 10, 30, 40]]


def alone(processor, index: int):
    texts, regions = mixed_batch(processor)
    first = sum(text.count("<image>") for text in texts[:index])
    count = texts[index].count("<image>")
    images = random_images(3)[first : first + count] or None
    return processor(
        images=images, text=[texts[index]], regions=regions[first : first + count] or None, return_tensors="pt"
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_batch_of_mixed_samples_equals_each_alone(processor, model, side: str):
    texts, regions = mixed_batch(processor)
    inputs = batch(processor, texts, regions, side)
    with torch.no_grad():
        together = model(**inputs).logits
        for row in range(len(texts)):
            single = model(**alone(processor, row)).logits[0]
            torch.testing.assert_close(
                together[row][inputs["attention_mask"][row].bool()], single, atol=1e-5, rtol=1e-4
            )


@pytest.mark.parametrize("settings", [{}, {"num_beams": 3}, {"use_cache": False}], ids=["cache", "beams", "no_cache"])
def test_generate_uses_the_mask_at_prefill(processor, model, settings: dict):
    texts, regions = mixed_batch(processor)
    inputs = batch(processor, texts, regions)
    length = inputs["input_ids"].shape[1]
    together = model.generate(**inputs, max_new_tokens=6, min_new_tokens=6, do_sample=False, **settings)[:, length:]
    for row in range(len(texts)):
        single = alone(processor, row)
        expected = model.generate(**single, max_new_tokens=6, min_new_tokens=6, do_sample=False, **settings)
        assert together[row].tolist() == expected[0, single["input_ids"].shape[1] :].tolist()


def test_all_beams_see_the_images_of_their_sample_in_order(processor, model):
    inputs = batch(processor, *mixed_batch(processor))
    settings = {"max_new_tokens": 1, "output_logits": True, "return_dict_in_generate": True}
    (logits,) = model.generate(**inputs, **settings, num_beams=3, do_sample=False).logits  # (3 * 3, V)
    with torch.no_grad():
        expected = model(**inputs).logits[:, -1].repeat_interleave(3, dim=0)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)


def test_generate_agrees_with_repeated_forward(processor, model):
    inputs = batch(processor, ["USER: <image>\nwhat ASSISTANT:"], [[0, 0, 8, 8]])
    generated = model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False)[0].tolist()
    ids = inputs["input_ids"]
    end = model.generation_config.eos_token_id
    for _ in range(5):
        with torch.no_grad():
            logits = model(input_ids=ids, pixel_values=inputs["pixel_values"], region_mask=inputs["region_mask"]).logits
        logits[0, -1, end] = -torch.inf  # min_new_tokens
        ids = torch.cat([ids, logits[:, -1:].argmax(dim=-1)], dim=1)
    assert ids[0].tolist() == generated


def test_text_only_batch_reaches_compressor_and_projector_with_zero(processor, model):
    inputs = batch(processor, ["USER: hello ASSISTANT:"], None)
    model.train()
    try:
        model.zero_grad()
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        trained = [*model.model.compressor.parameters(), *model.model.multi_modal_projector.parameters()]
        assert trained
        assert all(parameter.grad is not None and not parameter.grad.any() for parameter in trained)
    finally:
        model.eval()
    with torch.no_grad():
        evaluated = model(**inputs).logits
        model.train()
        torch.testing.assert_close(model(**inputs).logits, evaluated)
        model.eval()


def test_frozen_tower_builds_no_graph_even_with_gradient_checkpointing(processor, model):
    inputs = batch(processor, ["USER: <image>\nwhat ASSISTANT:"], [[0, 0, 8, 8]])
    model.model.vision_tower.requires_grad_(False)
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.enable_input_require_grads()
    try:
        outputs = model.model.get_image_features(inputs["pixel_values"], inputs["region_mask"])
        assert not any(state.requires_grad for state in outputs.hidden_states)
        assert outputs.pooler_output[0].requires_grad
    finally:
        model.gradient_checkpointing_disable()
        model.disable_input_require_grads()
        model.model.vision_tower.requires_grad_(True)
        model.eval()


def test_variable_image_sizes_are_refused(processor, model):
    inputs = batch(processor, ["USER: <image>\nwhat ASSISTANT:"], None)
    with pytest.raises(ValueError, match="image_sizes"):
        model(**inputs, image_sizes=torch.tensor([[8, 8]]))


@pytest.mark.parametrize("budget", [1, 10_000])
def test_budget_outside_the_patches(tiny_llava: Path, budget: int):
    with pytest.raises(ValueError, match="token_budget"):
        CropLlavaForConditionalGeneration.from_pretrained(tiny_llava, token_budget=budget)
    with pytest.raises(ValueError, match="token_budget"):
        CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=budget)


def test_unknown_compressor(tiny_llava: Path):
    with pytest.raises(ValueError, match="compressor_type"):
        CropLlavaForConditionalGeneration.from_pretrained(tiny_llava, compressor_type="magic")
