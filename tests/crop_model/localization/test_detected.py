"""Tiny detectors of both real architectures, with random weights, against a slow reading of what they say."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from crop_model.localization.base import LocatedRegion
from crop_model.localization.detected import DETECTORS, ZeroShotLocalizer
from crop_model.regions import WHOLE_IMAGE
from tests.tiny_models import DETECTOR_MAKERS

QUESTIONS = ("What is the dog doing?", "Is the frame red", "What", "the cat. the hat.")


@pytest.fixture(scope="module", params=DETECTOR_MAKERS)
def localizer(request: pytest.FixtureRequest) -> ZeroShotLocalizer:
    return DETECTOR_MAKERS[request.param]()


def test_it_moves_with_its_model() -> None:
    for make in DETECTOR_MAKERS.values():
        assert make().to("meta").model.device.type == "meta"


def picture(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


def read_slowly(localizer: ZeroShotLocalizer, image: Image.Image, text: str) -> list[tuple[float, list[float]]]:
    """Scores and boxes in pixels, best first, number by number from the model's raw outputs."""
    inputs = localizer.processor(images=image, text=[text], return_tensors="pt")
    with torch.no_grad():
        outputs = localizer.model(**inputs)
    side = (max(image.size),) * 2 if localizer.model.config.model_type == "owlv2" else image.size
    found = []
    for logits, (cx, cy, w, h) in zip(outputs.logits[0].tolist(), outputs.pred_boxes[0].tolist(), strict=True):
        score = max(1 / (1 + math.exp(-logit)) for logit in logits if logit > float("-inf"))
        corners = [(cx - w / 2) * side[0], (cy - h / 2) * side[1], (cx + w / 2) * side[0], (cy + h / 2) * side[1]]
        if corners[0] < image.width and corners[1] < image.height and corners[2] > 0 and corners[3] > 0:
            sides = [clipped(*corners[place::2], image.size[place]) for place in (0, 1)]
            found.append((score, [*(low for low, _ in sides), *(high for _, high in sides)]))
    return sorted(found, reverse=True)


def clipped(low: float, high: float, size: int) -> tuple[float, float]:
    """Cut off at the image's rim, a pixel wide at least."""
    low, high = max(low, 0.0), min(high, float(size))
    if high - low >= 1:
        return low, high
    start = min(max((low + high) / 2 - 0.5, 0.0), size - 1.0)
    return start, start + 1


def cells_of(box: list[float], image: Image.Image) -> tuple[int, ...]:
    """The cells with a common area, tried one by one."""
    columns = [c for c in range(8) if box[0] < (c + 1) * image.width / 8 and box[2] > c * image.width / 8]
    rows = [r for r in range(8) if box[1] < (r + 1) * image.height / 8 and box[3] > r * image.height / 8]
    return columns[0], rows[0], columns[-1], rows[-1]


@pytest.mark.parametrize("size", [(96, 64), (60, 90)])
def test_regions_are_those_of_a_slow_reading(localizer: ZeroShotLocalizer, size: tuple[int, int]) -> None:
    image = picture(1, size)
    found = read_slowly(localizer, image, "what is the dog doing.")
    regions = set()
    for count in (1, 2, len(found)):  # a threshold that lets so many boxes through
        threshold = (found[count - 1][0] + found[count][0]) / 2 if count < len(found) else 0.0
        for choice in ("best", "union"):
            (located,) = ZeroShotLocalizer(localizer.model, localizer.processor, threshold, choice).predict(
                [image], [QUESTIONS[0]]
            )
            boxes = [box for _, box in found[: count if choice == "union" else 1]]
            expected = [min(b[0] for b in boxes), min(b[1] for b in boxes)]
            expected += [max(b[2] for b in boxes), max(b[3] for b in boxes)]
            assert located.confidence == pytest.approx(found[0][0], rel=1e-4)
            assert located.cells == cells_of(expected, image)
            if located.cells == WHOLE_IMAGE:
                assert located.region is None
            else:
                assert located.region == pytest.approx(expected, abs=0.01)
            regions.add(located.region)
    assert len(regions) > 1


def test_below_the_threshold_is_the_whole_image(localizer: ZeroShotLocalizer) -> None:
    image = picture(2)
    best = read_slowly(localizer, image, "what.")[0][0]
    (located,) = ZeroShotLocalizer(localizer.model, localizer.processor, 1.0).predict([image], ["What"])
    assert located == LocatedRegion(None, WHOLE_IMAGE, pytest.approx(best, rel=1e-4))


def test_a_batch_is_each_question_alone(localizer: ZeroShotLocalizer) -> None:
    """Questions of other lengths among them: GroundingDINO's processor would make one text of several."""
    images = [picture(number) for number in range(4)]
    best = ZeroShotLocalizer(localizer.model, localizer.processor, 0.0, "best")
    together = best.predict(images, QUESTIONS, batch_size=3)
    assert len({located.confidence for located in together}) == 4
    for image, question, located in zip(images, QUESTIONS, together, strict=True):
        (alone,) = best.predict([image], [question])
        assert alone.confidence == pytest.approx(located.confidence, abs=1e-4)


def test_a_long_question_is_cut(localizer: ZeroShotLocalizer) -> None:
    (located,) = localizer.predict([picture(0)], ["the dog " * 200])
    assert 0 <= located.confidence <= 1


def test_numbers_that_are_not_finite_are_the_whole_image(localizer: ZeroShotLocalizer) -> None:
    forward = localizer.model.forward

    def broken(**inputs: torch.Tensor) -> object:
        outputs = forward(**inputs)
        outputs.logits = outputs.logits * float("nan")
        return outputs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(localizer.model, "forward", broken)
        assert localizer.predict([picture(0)], ["What"]) == [LocatedRegion(None, WHOLE_IMAGE, 0.0)]


def test_it_comes_back_from_a_folder(localizer: ZeroShotLocalizer, tmp_path: Path) -> None:
    localizer.model.save_pretrained(tmp_path)
    localizer.processor.save_pretrained(tmp_path)
    again = ZeroShotLocalizer.from_pretrained(str(tmp_path), threshold=0.0, choice="best")
    image = picture(3)
    (expected,) = ZeroShotLocalizer(localizer.model, localizer.processor, 0.0, "best").predict([image], [QUESTIONS[0]])
    (found,) = again.predict([image], [QUESTIONS[0]])
    assert (found.cells, found.confidence) == (expected.cells, pytest.approx(expected.confidence, rel=1e-4))


def test_what_is_no_detector_is_refused(localizer: ZeroShotLocalizer) -> None:
    demo = Path(__file__).parents[3] / "configs" / "demo_base"
    with pytest.raises(ValueError, match=f"type llava is no zero-shot localizer: none of {', '.join(DETECTORS)}"):
        ZeroShotLocalizer.from_pretrained(str(demo))
    with pytest.raises(ValueError, match="choice: 'all' is none of union, best"):
        ZeroShotLocalizer(localizer.model, localizer.processor, choice="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="questions: 2 for 1 images"):
        localizer.predict([picture(0)], ["a", "b"])
    assert localizer.predict([], []) == []
