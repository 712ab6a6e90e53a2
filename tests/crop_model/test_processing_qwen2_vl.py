"""Qwen2-VL's inputs without torchvision: as many placeholders as the model makes tokens, sizes as configured."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessorPil

from crop_model.localization import generated
from crop_model.localization.generated import Localizer
from crop_model.processing_qwen2_vl import IMAGE_TOKEN, Qwen2VLImageTextProcessor

SIZES = ((32, 32), (100, 20), (9, 60), (300, 200))


def pictures() -> list[Image.Image]:
    random = torch.Generator().manual_seed(0)
    return [
        Image.fromarray(torch.randint(0, 256, (height, width, 3), generator=random).to(torch.uint8).numpy())
        for width, height in SIZES
    ]


@pytest.fixture(scope="module")
def processor(tiny_qwen2_vl: Path) -> Qwen2VLImageTextProcessor:
    return Localizer.load_processor(str(tiny_qwen2_vl))


def test_placeholders_are_the_tokens_of_the_vision_tower(
    processor: Qwen2VLImageTextProcessor, tiny_qwen2_vl: Path
) -> None:
    model = Qwen2VLForConditionalGeneration.from_pretrained(tiny_qwen2_vl)
    texts = [f"{IMAGE_TOKEN} 3", f"a {IMAGE_TOKEN}{IMAGE_TOKEN} b", f"{IMAGE_TOKEN}"]
    batch = processor(images=pictures(), text=texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        features = model.get_image_features(batch["pixel_values"], batch["image_grid_thw"]).pooler_output
    counts = [len(tokens) for tokens in features]
    placeholders = batch["input_ids"] == processor.image_token_id
    assert placeholders.sum(dim=1).tolist() == [counts[0], counts[1] + counts[2], counts[3]]
    assert torch.equal(batch["mm_token_type_ids"].bool(), placeholders)
    assert all(4 <= count <= processor.token_budget == 16 for count in counts)


def test_pixels_are_those_of_the_image_processor_alone(processor: Qwen2VLImageTextProcessor) -> None:
    image = pictures()[3]
    alone = Qwen2VLImageProcessorPil(patch_size=4, min_pixels=256, max_pixels=1024)(image, return_tensors="pt")
    batch = processor(images=[image], text=[IMAGE_TOKEN], return_tensors="pt")
    assert torch.equal(batch["pixel_values"], alone["pixel_values"])
    assert torch.equal(batch["image_grid_thw"], alone["image_grid_thw"])


def test_pixels_can_be_configured_and_are_saved(tiny_qwen2_vl: Path, tmp_path: Path) -> None:
    configured = Localizer.load_processor(str(tiny_qwen2_vl), max_pixels=576)
    assert "max_pixels" not in configured.tokenizer.init_kwargs, "it would go into every call"
    configured.save_pretrained(tmp_path)
    again = Qwen2VLImageTextProcessor.from_pretrained(tmp_path)
    assert again.token_budget == 9 and again.image_processor.size["shortest_edge"] == 256
    for pixels in ({"min_pixels": 63}, {"min_pixels": 2048}, {"max_pixels": 200}):
        with pytest.raises(ValueError, match=r"min_pixels: .* is outside 64"):
            Localizer.load_processor(str(tiny_qwen2_vl), **pixels)


def test_pixels_are_of_no_other_model(tiny_llava: Path) -> None:
    with pytest.raises(ValueError, match="max_pixels: of qwen2_vl alone"):
        Localizer.from_pretrained(str(tiny_llava), max_pixels=576)


def test_a_further_model_type_needs_an_entry_alone(tiny_llava: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own:
        from_pretrained = staticmethod(lambda name, **pixels: (name, pixels))

    monkeypatch.setitem(generated.PROCESSORS, "llava", Own)
    assert Localizer.load_processor(str(tiny_llava), max_pixels=576) == (str(tiny_llava), {"max_pixels": 576})


def test_a_saved_processor_brings_its_source(tiny_qwen2_vl: Path, tmp_path: Path) -> None:
    """tests/train/test_localizer.py loads one where this project is not installed."""
    Qwen2VLImageTextProcessor.register_for_auto_class("AutoProcessor")
    Localizer.load_processor(str(tiny_qwen2_vl)).save_pretrained(tmp_path)
    again = AutoProcessor.from_pretrained(tmp_path, trust_remote_code=True)
    assert type(again).__module__.startswith("transformers_modules")
    assert again.token_budget == 16
