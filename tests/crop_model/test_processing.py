"""The processor: one geometry for pixels and regions, exactly T placeholders."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import AutoProcessor, SiglipImageProcessorPil

from crop_model.processing_crop_llava import CropLlavaProcessor
from crop_model.regions import RegionError

BUDGET = 7
WHITE_ON_BLACK = (40, 24)  # width, height


@pytest.fixture(scope="module")
def clip_llava(tiny_llava: Path, tmp_path_factory) -> Path:
    """As llava-hf/llava-1.5-7b-hf publishes its processor: CLIP's, which knows no padding."""
    folder = tmp_path_factory.mktemp("clip") / "llava"
    shutil.copytree(tiny_llava, folder)
    stored = json.loads((folder / "processor_config.json").read_text())
    settings = stored.pop("image_processor")
    settings.pop("do_pad")
    settings["image_processor_type"] = "CLIPImageProcessor"
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    (folder / "processor_config.json").write_text(json.dumps(stored))
    assert type(AutoProcessor.from_pretrained(folder).image_processor).__name__.startswith("CLIPImageProcessor")
    return folder


@pytest.fixture(
    scope="module",
    params=[("llava", "padded_square"), ("llava", "cropped"), ("llava", "squashed"), ("clip", "padded_square")],
    ids="-".join,
)
def processor(tiny_llava: Path, clip_llava: Path, request) -> CropLlavaProcessor:
    kind, frame = request.param
    folder = {"llava": tiny_llava, "clip": clip_llava}[kind]
    return CropLlavaProcessor.from_pretrained(folder, token_budget=BUDGET, frame=frame, region_grid=None)


def painted(size, box) -> Image.Image:
    pixels = np.zeros((size[1], size[0], 3), dtype=np.uint8)
    x1, y1, x2, y2 = box
    pixels[y1:y2, x1:x2] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    "size, box", [((40, 24), (16, 8, 24, 16)), ((24, 40), (8, 20, 16, 28)), ((32, 32), (0, 0, 8, 8))]
)
def test_mask_covers_the_painted_pixels(processor, size, box):
    """The brightest patch of what the model sees lies in the mask, whatever the frame."""
    image = painted(size, box)
    out = processor(images=[image], text=["<image>"], regions=[box], return_tensors="pt")
    side = processor.patch_size
    rows, cols = processor.patch_grid
    brightness = out["pixel_values"][0].sum(0).reshape(rows, side, cols, side).sum((1, 3)).flatten()
    dark = processor(images=[painted(size, (0, 0, 0, 0))], text=["<image>"], return_tensors="pt")
    gained = brightness - dark["pixel_values"][0].sum(0).reshape(rows, side, cols, side).sum((1, 3)).flatten()
    mask = out["region_mask"][0]
    assert mask[gained.argmax()]
    assert gained[mask].sum() > 0.9 * gained.sum()  # resampling bleeds a little over the box


def test_nested_flat_and_absent_regions(processor):
    image = painted(WHITE_ON_BLACK, (16, 8, 24, 16))
    texts = ["<image> <image>", "no image", "<image>"]
    box = [16, 8, 24, 16]
    nested = processor(
        images=[[image, image], [], [image]],
        text=texts,
        regions=[[box, None], [], [box]],
        padding=True,
        return_tensors="pt",
    )
    flat = processor(images=[image] * 3, text=texts, regions=[box, None, box], padding=True, return_tensors="pt")
    unknown = processor(images=[image] * 3, text=texts, padding=True, return_tensors="pt")
    assert nested["region_mask"].tolist() == flat["region_mask"].tolist()
    assert flat["region_mask"].any(dim=1).tolist() == [True, False, True]
    assert not unknown["region_mask"].any()
    image_token = processor.image_token_id
    assert (flat["input_ids"] == image_token).sum(dim=1).tolist() == [2 * BUDGET, 0, BUDGET]


@pytest.mark.parametrize(
    "regions", [[[1, 2, 3, 4]], [[1, 2, 3, 4], [500, 500, 510, 510]], [None, [1, 2, float("nan"), 4]]]
)
def test_wrong_regions_are_refused(processor, regions):
    image = painted(WHITE_ON_BLACK, (16, 8, 24, 16))
    with pytest.raises(RegionError):
        processor(images=[image, image], text=["<image> <image>"], regions=regions, return_tensors="pt")


@pytest.mark.parametrize("cells", [(2, 1, 4, 2), (0, 0, 0, 0), (7, 0, 7, 7)])
def test_cells_are_those_of_the_image_without_padding(processor, cells):
    """The cells' pixels, counted here, make the same mask."""
    width, height = WHITE_ON_BLACK
    image = painted(WHITE_ON_BLACK, (0, 0, 0, 0))
    xmin, ymin, xmax, ymax = cells
    box = [xmin * width / 8, ymin * height / 8, (xmax + 1) * width / 8, (ymax + 1) * height / 8]
    masks = [
        processor(images=[image], text=["<image>"], regions=[region], return_tensors="pt")["region_mask"].tolist()
        for region in (box, {"cells": cells}, {"cells": list(cells)})
    ]
    assert masks[0] == masks[1] == masks[2]


def test_all_cells_are_no_region(processor):
    image = painted(WHITE_ON_BLACK, (0, 0, 0, 0))
    out = processor(images=[image], text=["<image>"], regions=[{"cells": [0, 0, 7, 7]}], return_tensors="pt")
    assert not out["region_mask"].any()


@pytest.mark.parametrize(
    "region", [{"cells": [0, 0, 8, 7]}, {"cells": [3, 0, 2, 7]}, {"cells": [0.5, 0, 2, 7]}, {"box": [0, 0, 2, 7]}, {}]
)
def test_wrong_cells_are_refused(processor, region):
    with pytest.raises(RegionError, match="cells"):
        processor(images=[painted(WHITE_ON_BLACK, (0, 0, 0, 0))], text=["<image>"], regions=[region])


def test_regions_stand_beside_the_images_of_messages(processor):
    """One conversation and two at once; an image of a message, and an image that is none's."""
    box, image = [16, 8, 24, 16], painted(WHITE_ON_BLACK, (16, 8, 24, 16))
    marked, bare, cells = (
        {"type": "image", "image": image, **more} for more in ({"region": box}, {}, {"region": {"cells": [1, 1, 2, 2]}})
    )
    text, said = {"type": "text", "text": "what"}, {"role": "assistant", "content": "red"}
    one = [{"role": "user", "content": [marked, text]}, said, {"role": "user", "content": [bare, text]}]
    two = [{"role": "user", "content": [cells, text]}]

    def masks(conversation, **more):
        options = {"padding": True, "return_tensors": "pt", **more}
        out = processor.apply_chat_template(conversation, tokenize=True, return_dict=True, processor_kwargs=options)
        return out["region_mask"].tolist()

    def without(conversation):
        return [
            {**m, "content": [{k: v for k, v in p.items() if k != "region"} for p in m["content"]]}
            if isinstance(m["content"], list)
            else m
            for m in conversation
        ]

    regions = [box, None, {"cells": [1, 1, 2, 2]}]
    assert masks(one) == masks(without(one), regions=regions[:2])
    assert masks([one, two]) == masks([without(one), without(two)], regions=regions)
    assert not np.array(masks(without(one))).any()
    with pytest.raises(RegionError, match="regions: given in the messages and in processor_kwargs"):
        masks(one, regions=regions[:2])


def test_settings_survive_saving(processor, tmp_path: Path):
    processor.save_pretrained(tmp_path)
    again = CropLlavaProcessor.from_pretrained(tmp_path)
    assert (again.frame, again.token_budget, again.region_grid) == (processor.frame, BUDGET, None)
    assert again.geometry == processor.geometry


def test_default_is_one_token_a_patch_on_an_8x8_grid(tiny_llava: Path):
    processor = CropLlavaProcessor.from_pretrained(tiny_llava)
    rows, cols = processor.patch_grid
    assert (processor.token_budget, processor.region_grid, processor.frame) == (rows * cols, (8, 8), "padded_square")
    assert processor.image_processor.do_pad


def test_regions_grow_as_the_processor_says(tiny_llava: Path, tmp_path: Path):
    image = painted(WHITE_ON_BLACK, (0, 0, 0, 0))
    grown = CropLlavaProcessor.from_pretrained(tiny_llava, region_scale=2.0, region_min_side=0.5, region_grid=None)
    grown.save_pretrained(tmp_path)
    grown = CropLlavaProcessor.from_pretrained(tmp_path)
    exact = CropLlavaProcessor.from_pretrained(tiny_llava, region_grid=None)
    # 40x24 image: 4x4 about (22, 10) grows to half the width and half the height: x 12..32, y 4..16
    masks = [
        processor(images=[image], text=["<image>"], regions=[box], return_tensors="pt")["region_mask"]
        for processor, box in ((grown, [20, 8, 24, 12]), (exact, [12, 4, 32, 16]), (exact, [20, 8, 24, 12]))
    ]
    assert masks[0].equal(masks[1])
    assert masks[0].sum() > masks[2].sum()
    assert grown.grow_region((20, 8, 24, 12), 40, 24) == (12, 4, 32, 16)


@pytest.mark.parametrize("wrong", [{"region_scale": 0.0}, {"region_min_side": 1.5}])
def test_growth_out_of_range(tiny_llava: Path, wrong: dict):
    with pytest.raises(ValueError, match="region_scale"):
        CropLlavaProcessor.from_pretrained(tiny_llava, **wrong)


def test_image_processor_of_unknown_geometry(tiny_llava: Path):
    tokenizer = CropLlavaProcessor.from_pretrained(tiny_llava).tokenizer
    with pytest.raises(ValueError, match="SiglipImageProcessorPil is none of"):
        CropLlavaProcessor(SiglipImageProcessorPil(), tokenizer, patch_size=4)


def test_unknown_frame(tiny_llava: Path):
    with pytest.raises(ValueError, match="frame"):
        CropLlavaProcessor.from_pretrained(tiny_llava, frame="tiled")


def test_chat_template_marks_the_answer_through_compression(tiny_llava: Path):
    processor = CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=BUDGET)
    image = painted(WHITE_ON_BLACK, (16, 8, 24, 16))
    conversation = [
        {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "what"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
    ]
    out = processor.apply_chat_template(
        conversation,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        processor_kwargs={"regions": [[16, 8, 24, 16]]},
    )
    ids, mask = np.array(out["input_ids"]).reshape(-1), np.array(out["assistant_masks"]).reshape(-1).astype(bool)
    assert "red" in processor.tokenizer.decode(ids[mask])
    assert "what" not in processor.tokenizer.decode(ids[mask])
    assert not (ids[mask] == processor.image_token_id).any()
