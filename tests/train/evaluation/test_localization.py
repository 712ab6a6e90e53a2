"""Rows whose regions a localizer finds, and the measures of what it finds, against a count cell by cell."""

import json
import time
from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image

from crop_model.cost.localizer import LocalizerShape
from crop_model.localization.base import LocatedRegion
from crop_model.regions import Box, Cells
from data_prep.schema.sample import read_regions
from tests.tiny_models import owlv2
from train.backbones.checkpoint import Checkpoint
from train.backbones.localizers import load_localizer, localizer_cost
from train.evaluate import main
from train.evaluation.localization import LocatedRow, measures

WAIT_S = 0.3
SIZE = (80, 80)  # a cell is 10 x 10 pixels


def measured(cases: list[tuple[Box | None, Cells]]) -> dict[str, dict[str, float]]:
    samples = datasets.Dataset.from_dict(
        {
            "sample_id": [str(number) for number in range(len(cases))],
            "kind": ["digit" if true is not None else None for true, _ in cases],
            "region": [None if true is None else list(true) for true, _ in cases],
        }
    )
    located = {
        str(number): LocatedRow(LocatedRegion(None if cells == (0, 0, 7, 7) else (0, 0, 1, 1), cells, 1.0), *SIZE)
        for number, (_, cells) in enumerate(cases)
    }
    return measures(samples, located)


def test_measures_of_hand_counted_cases() -> None:
    result = measured(
        [
            ((10, 10, 30, 20), (1, 1, 2, 1)),  # exact: 2 of 2 cells
            ((10, 10, 30, 20), (0, 0, 2, 1)),  # contained in 6
            ((10, 10, 30, 20), (2, 1, 3, 1)),  # one cell in both, three in either
            (None, (0, 0, 7, 7)),
            ((0, 0, 10, 10), (0, 0, 7, 7)),  # everything contains it, at 64 times the area
        ]
    )
    assert result["digit"] == {
        "n": 4,
        "containment": 3 / 4,
        "area_ratio": (2 + 6 + 2 + 64) / (2 + 2 + 2 + 1),
        "grid_iou": pytest.approx((1 + 1 / 3 + 1 / 3 + 1 / 64) / 4),
        "exact": 1 / 4,
    }
    assert result["all"]["n"] == 5
    assert result["all"]["global_f1"] == pytest.approx(2 / 3)  # of one whole image, two are said
    assert result["size global"]["exact"] == 1
    assert result["size small"]["n"] == 4


def test_a_region_that_is_not_trusted_counts_as_the_whole_image() -> None:
    samples = datasets.Dataset.from_dict({"sample_id": ["0"], "kind": ["digit"], "region": [[0.0, 0.0, 10.0, 10.0]]})
    unsure = {"0": LocatedRow(LocatedRegion(None, (0, 0, 0, 0), 0.1), *SIZE)}
    assert measures(samples, unsure)["all"]["area_ratio"] == 64


def test_rows_take_their_regions_from_the_localizer(
    tiny_crop_llava: Path, tiny_llava: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question is asked with the region found for it."""
    monkeypatch.setattr("crop_model.localization.generated.Localizer.predict", find_by_question)
    source = {
        "annotations": toy_data / "data.json",
        "image_root": toy_data / "images",
        "regions": toy_data / "regions/toy",
    }
    rows = [
        {"checkpoint": str(tiny_crop_llava), "region_source": "localizer", "localizer": str(tiny_llava)},
        {"checkpoint": str(tiny_crop_llava), "region_source": "oracle"},
    ]
    words = [
        f"rows={json.dumps(rows)}",
        f"eval_data=[{json.dumps({key: str(path) for key, path in source.items()})}]",
        f"output_dir={tmp_path}",
        "max_new_tokens=1",
        "ttft_samples=1",
    ]
    main(words)
    by_localizer, oracle = json.loads((tmp_path / "evaluation.json").read_text())["rows"]
    assert by_localizer["ttft_s"] > WAIT_S
    expected = (
        LocalizerShape.from_llava(Checkpoint.open(tiny_llava).config)
        .localize(by_localizer["text_tokens"], (1, 3, 5, 7))
        .total
    )
    assert (by_localizer["localizer_macs"], by_localizer["localizer_flops"]) == (expected, 2 * expected)
    assert "localizer_macs" not in oracle and by_localizer["macs"] == oracle["macs"]
    (line,) = [line for line in (tmp_path / "evaluation.md").read_text().splitlines() if "| localizer " in line]
    assert f" + {expected / 1e9:.3g} " in line
    assert by_localizer["region_source"] == "localizer"
    assert by_localizer["localization"]["all"]["n"] == len(read_regions(toy_data / "regions" / "toy"))
    assert "localization" not in oracle
    (file,) = tmp_path.glob("predictions-00-*.jsonl")
    for line in file.read_text().splitlines():
        prediction = json.loads(line)
        assert prediction["region"] == list(box_of(prediction["question"]))


def box_of(question: str) -> Box:
    """Another one for questions of another length."""
    return (1.0, 2.0, 4.0 + len(question) % 7, 9.0)


def find_by_question(self: object, images: list, questions: list[str], batch_size: int = 8) -> list[LocatedRegion]:
    time.sleep(WAIT_S)
    return [LocatedRegion(box_of(question), (0, 0, 1, 1), 1.0) for question in questions]


def test_a_detector_localizes_at_a_cost_that_no_formula_tells(tmp_path: Path) -> None:
    detector = owlv2()
    detector.model.save_pretrained(tmp_path)
    detector.processor.save_pretrained(tmp_path)
    loaded = load_localizer(str(tmp_path), torch.float32, torch.device("cpu"))
    image = Image.new("RGB", (40, 30), "red")
    assert [found.cells for found in loaded.predict([image], ["the cat"])] == [
        found.cells for found in detector.predict([image], ["the cat"])
    ]
    assert localizer_cost(loaded, 9) == {"localizer_macs": None, "localizer_flops": None}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"region_source": "localizer"}, "localizer: it goes with region_source localizer"),
        ({"region_source": "localizer", "localizer": "nowhere"}, "model nowhere: no such folder"),
    ],
)
def test_a_wrong_row_is_one_line(
    row: dict, message: str, tiny_crop_llava: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = {"annotations": str(toy_data / "data.json"), "image_root": str(toy_data / "images")}
    words = [f"rows={json.dumps([{'checkpoint': str(tiny_crop_llava), **row}])}", f"eval_data=[{json.dumps(source)}]"]
    with pytest.raises(SystemExit) as ended:
        main([*words, f"output_dir={tmp_path}"])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
