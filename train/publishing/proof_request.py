"""Make the request of an export's proof, an image and a question with a region, and the card's picture of it.

REQUEST/image.png  request.json {"question", "region"}
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from crop_model.regions import sanitize_box
from data_prep.common.errors import ConfigError, RecordError
from data_prep.files.images import open_rgb
from train.backbones import BACKBONES
from train.pictures.asking import answer_and_draw, own_question

MAX_ANSWER_TOKENS = 16  # limit for the answer in the picture


def read_request(path: str | None, question: str, region: Sequence[float] | None) -> tuple[Image.Image, dict[str, Any]]:
    """Read the image and make the request about it, with `question` and `region`.

    Args:
        path: of the image; None: a drawn one.
        question: in words.
        region: pixels x1, y1, x2, y2; None: the image's middle.

    Raises:
        ConfigError: the image does not open.
        RegionError: the region lies outside it.
    """
    try:
        image = _test_card() if path is None else open_rgb(Path(path))
    except RecordError as error:
        raise ConfigError(f"image: {error}") from None
    width, height = image.size
    middle = (width / 4, height / 4, width / 2, height / 2)
    box = sanitize_box(region or middle, width, height)
    return image, {"question": question, "region": box}


def write_request(folder: Path, image: Image.Image, query: dict[str, Any]) -> None:
    """Write a request into a new folder."""
    folder.mkdir()
    image.save(folder / "image.png")
    (folder / "request.json").write_text(json.dumps(query), encoding="utf-8")


def draw_request(model: Any, processor: Any, request: Path) -> Image.Image:
    """Draw the request's image with its region, what the tokens keep of it, and the model's answer, for the card."""
    query = json.loads((request / "request.json").read_text(encoding="utf-8"))
    row = own_question(str(request / "image.png"), **query)
    collator = BACKBONES[model.config.model_type].collator(processor)
    return answer_and_draw(model, collator, None, row, MAX_ANSWER_TOKENS).picture


def _test_card() -> Image.Image:
    """Draw a picture in which no two places are alike: colour gradients with a disc in the middle."""
    image = Image.merge(
        "RGB", [Image.linear_gradient("L"), Image.linear_gradient("L").rotate(90), Image.radial_gradient("L")]
    )
    ImageDraw.Draw(image).ellipse((90, 70, 150, 130), fill="white", outline="black", width=4)
    return image.crop((0, 0, 256, 192))
