"""The pipeline's answers are those of model and localizer called one after the other; its clock runs in order."""

import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import LlavaForConditionalGeneration, LlavaProcessor

from crop_model.localization.base import LocatedRegion
from crop_model.localization.generated import Localizer
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.processing_crop_llava import CropLlavaProcessor
from crop_model.serving.pipeline import CropPipeline
from tests.tiny_models import owlv2
from train.export import main as export

DEMO = Path(__file__).parents[3] / "configs" / "demo_base"
QUESTIONS = ("Which digit is at B3?", "Is any frame red?", "Which digit is at C4?")
WAIT_S = 0.05


def demo(compressor_type: str, budget: int) -> tuple[CropLlavaForConditionalGeneration, CropLlavaProcessor]:
    options = {"compressor_type": compressor_type, "token_budget": budget}
    model = CropLlavaForConditionalGeneration.from_pretrained(DEMO, **options)
    return model.eval(), CropLlavaProcessor.from_pretrained(DEMO, token_budget=budget)


@pytest.fixture(scope="module")
def vlm() -> tuple[CropLlavaForConditionalGeneration, CropLlavaProcessor]:
    return demo("region_ratio", 28)


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    return Localizer(*demo("none", 256))


def pictures() -> list[Image.Image]:
    noise = torch.randint(0, 256, (len(QUESTIONS), 90, 120, 3), generator=torch.Generator().manual_seed(0))
    return [Image.fromarray(one.to(torch.uint8).numpy()) for one in noise]


def one_by_one(vlm: tuple, image: Image.Image, question: str, region: object) -> str:
    model, processor = vlm
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}],
        add_generation_prompt=True,
    )
    inputs = processor(images=[image], text=[text], regions=[region], return_tensors="pt")
    with torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    return processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def test_answers_are_those_of_the_parts_one_by_one(vlm: tuple, localizer: Localizer) -> None:
    results = CropPipeline(*vlm, localizer)(pictures(), QUESTIONS, batch_size=2, max_new_tokens=4)
    found = localizer.predict(pictures(), QUESTIONS, batch_size=2)
    for image, question, result, place in zip(pictures(), QUESTIONS, results, found, strict=True):
        assert LocatedRegion(result.region, result.cells, result.confidence) == place
        assert result.answer == one_by_one(vlm, image, question, place.region)


class Told:
    """A localizer that says one region, after a while."""

    def __init__(self, region: tuple | None):
        self.region = region

    def predict(self, images: list, questions: list, batch_size: int = 8) -> list[LocatedRegion]:
        time.sleep(WAIT_S)
        return [LocatedRegion(self.region, (0, 0, 1, 1), 0.5)] * len(images)


def test_the_region_is_what_the_model_looks_at(vlm: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: the masks that reach the model follow what the localizer says."""
    model, processor = vlm
    masks, forward = [], model.model.compressor.forward
    monkeypatch.setattr(
        model.model.compressor, "forward", lambda features, mask: (masks.append(mask), forward(features, mask))[1]
    )
    for region in ((0, 0, 15, 15), (60, 45, 120, 90), None):
        CropPipeline(model, processor, Told(region))(pictures()[:1], QUESTIONS[:1], max_new_tokens=1)
    counts = [int(mask.sum()) for mask in masks]
    assert 0 < counts[0] < counts[1] and counts[2] == 0


def test_the_clock_runs_in_order_and_has_the_localizer_in_it(vlm: tuple) -> None:
    results = CropPipeline(*vlm, Told(None))(pictures(), QUESTIONS, batch_size=2, max_new_tokens=4)
    for result in results:
        assert WAIT_S <= result.timings.localization_s < result.timings.first_token_s < result.timings.total_s
    assert results[0].timings == results[1].timings != results[2].timings  # of a batch
    (alone,) = CropPipeline(*vlm)(pictures()[:1], QUESTIONS[:1], max_new_tokens=4)
    assert alone.timings.localization_s == 0 < alone.timings.first_token_s < alone.timings.total_s


def test_the_first_token_comes_before_the_others(vlm: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a model that takes WAIT_S a token."""
    model, processor = vlm
    monkeypatch.setattr(model.generation_config, "eos_token_id", None)
    with model.register_forward_pre_hook(lambda *_: time.sleep(WAIT_S)):
        (result,) = CropPipeline(model, processor)(pictures()[:1], QUESTIONS[:1], max_new_tokens=5)
    assert result.timings.first_token_s >= WAIT_S
    assert result.timings.total_s - result.timings.first_token_s >= 4 * WAIT_S


def test_without_a_localizer_there_is_no_region(vlm: tuple) -> None:
    for image, question, result in zip(
        pictures(), QUESTIONS, CropPipeline(*vlm)(pictures(), QUESTIONS, max_new_tokens=4), strict=True
    ):
        assert (result.region, result.cells, result.confidence) == (None, None, None)
        assert result.answer == one_by_one(vlm, image, question, None)


def test_a_zero_shot_localizer_will_do(vlm: tuple) -> None:
    detector = owlv2()
    (result,) = CropPipeline(*vlm, detector)(pictures()[:1], QUESTIONS[:1], max_new_tokens=4)
    (place,) = detector.predict(pictures()[:1], QUESTIONS[:1])
    assert LocatedRegion(result.region, result.cells, result.confidence) == place


def test_from_exports(vlm: tuple, localizer: Localizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.publishing.exporter.prove", lambda *arguments: 0.0)  # integration/test_export.py
    for name, (model, processor) in {"vlm": vlm, "localizer": (localizer.model, localizer.processor)}.items():
        model.save_pretrained(tmp_path / f"{name}-whole")
        processor.save_pretrained(tmp_path / f"{name}-whole")
        export([str(tmp_path / f"{name}-whole"), str(tmp_path / name)])
    loaded = CropPipeline.from_pretrained(str(tmp_path / "vlm"), str(tmp_path / "localizer"))
    expected = CropPipeline(*vlm, localizer)(pictures(), QUESTIONS, max_new_tokens=4)
    for result, known in zip(loaded(pictures(), QUESTIONS, max_new_tokens=4), expected, strict=True):
        assert (result.answer, result.cells) == (known.answer, known.cells)


def test_any_family_with_a_compressor_gets_regions(vlm: tuple, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(vlm[0].config), "model_type", "a_further_one")
    region = (60.0, 45.0, 120.0, 90.0)
    (result,) = CropPipeline(*vlm, Told(region))(pictures()[:1], QUESTIONS[:1], max_new_tokens=4)
    assert (result.region, result.answer) == (region, one_by_one(vlm, pictures()[0], QUESTIONS[0], region))


def test_a_plain_llava_answers_but_takes_no_localizer() -> None:
    model, processor = LlavaForConditionalGeneration.from_pretrained(DEMO), LlavaProcessor.from_pretrained(DEMO)
    (result,) = CropPipeline(model.eval(), processor)(pictures()[:1], QUESTIONS[:1], max_new_tokens=4)
    assert result.answer == one_by_one(demo("none", 256), pictures()[0], QUESTIONS[0], None)
    with pytest.raises(ValueError, match="localizer: a model of type llava reads no regions"):
        CropPipeline(model, processor, Told(None))


def test_every_question_has_an_image(vlm: tuple) -> None:
    with pytest.raises(ValueError, match="questions: 1 for 3 images"):
        CropPipeline(*vlm)(pictures(), ["a"])
    assert CropPipeline(*vlm)([], []) == []
