"""Which questions are asked, and what a wrong call says. tests/integration/test_answer.py asks an export."""

import json
import re
import shutil
from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image

from crop_model.localization.base import LocatedRegion
from data_prep.common.errors import ConfigError
from train import answer as answer_module
from train.answer import main
from train.backbones.checkpoint import Checkpoint
from train.backbones.llava import Llava
from train.data.collator import Collator
from train.pictures.asking import Answered, answer_and_draw, load_export, own_question, pick_samples
from train.publishing import proof_request


def samples(rows: list[tuple[str | None, list[str]]]) -> datasets.Dataset:
    columns = {"kind": [kind for kind, _ in rows], "images": [images for _, images in rows]}
    return datasets.Dataset.from_dict({**columns, "place": list(range(len(rows)))})


def test_one_question_of_every_kind_comes_first_and_no_image_twice() -> None:
    rows = [("a", ["1"]), ("b", ["1"]), ("a", ["2"]), ("c", []), ("b", ["3"]), ("a", ["4"]), ("a", ["2"])]
    assert [row["place"] for row in pick_samples(samples(rows), 9)] == [0, 4, 2, 5]
    assert [row["place"] for row in pick_samples(samples(rows), 3)] == [0, 4, 2]


def test_questions_without_a_kind_are_taken_in_order() -> None:
    rows: list[tuple[str | None, list[str]]] = [(None, ["1"]), (None, ["1"]), (None, ["2"])]
    assert [row["place"] for row in pick_samples(samples(rows), 5)] == [0, 2]


def test_an_own_question_knows_its_image(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.new("RGB", (30, 20)).save(path)
    row = own_question(str(path), "what ?", [1, 2, 3, 4])
    assert (row["width"], row["height"], row["images"], row["region"]) == (30, 20, [str(path)], [1, 2, 3, 4])
    assert own_question(str(path), "what ?", [9, 9, 40, 2])["region"] == [9, 2, 30, 9]
    assert own_question(str(path), "what ?", None)["region"] is None


WRONG_CALLS = {
    "nothing to ask": ([], "nothing to ask"),
    "image alone": (["image=IMAGE"], "image and question go together"),
    "missing image": (["image=gone.png", "question=what ?"], "image: no such file: gone.png"),
    "half a region": (["image=IMAGE", "question=what ?", "region=[1, 2]"], "region: expected x1, y1, x2, y2"),
    "a region without area": (
        ["image=IMAGE", "question=what ?", "region=[10, 10, 10, 40]"],
        r"region: a box without area: \[10(.0)?, 10(.0)?, 10(.0)?, 40(.0)?\]$",
    ),
    "a region outside its image": (
        ["image=IMAGE", "question=what ?", "region=[31, 2, 40, 9]"],
        r"region: box .* lies outside its image of 30 x 20 pixels$",
    ),
    "two regions": (
        ["image=IMAGE", "question=what ?", "region=[1, 2, 3, 4]", "localizer=somewhere"],
        "region and localizer: give one of them, not both",
    ),
    "no question at all": (["count=0"], "count and max_new_tokens: must be at least 1"),
    "unknown key": (["pictures=2"], "unknown key 'pictures' \\(did you mean 'picture'"),
    "no export": (["image=IMAGE", "question=what ?"], "export .*empty: "),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_wrong_calls(case: str, tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    image, empty = tmp_path / "image.png", tmp_path / "empty"
    Image.new("RGB", (30, 20)).save(image)
    empty.mkdir()
    words, message = WRONG_CALLS[case]
    with pytest.raises(SystemExit) as caught:
        main([str(empty), str(tmp_path / "out.png"), *[word.replace("IMAGE", str(image)) for word in words]])
    assert caught.value.code == 2
    (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("python -m train.answer: error: ")]
    assert re.search(message, line), line


@pytest.mark.parametrize("picture", ["out.docx", "out", "out.png.psd"])
def test_a_picture_that_cannot_be_written_is_refused_at_once(
    picture: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(answer_module, "load_export", lambda name: pytest.fail("a model was loaded"))
    Image.new("RGB", (30, 20)).save(tmp_path / "image.png")
    with pytest.raises(SystemExit) as caught:
        main(["export", str(tmp_path / picture), f"image={tmp_path / 'image.png'}", "question=what ?"])
    assert caught.value.code == 2
    assert f"picture: {tmp_path / picture}: no picture can be written by that name" in capfd.readouterr().err


def test_what_is_no_export_is_one_line(
    tiny_llava: Path, tiny_crop_llava: Path, lora_checkpoint: Path, tmp_path: Path
) -> None:
    whole = shutil.copytree(tiny_crop_llava, tmp_path / "whole")
    config = json.loads((whole / "config.json").read_text())
    config.pop("auto_map", None)  # what is saved after an export in the same process has it
    (whole / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=f"^export {tiny_llava}: is not an export of this project$"):
        load_export(str(tiny_llava))
    for folder in (whole, lora_checkpoint):
        advice = f"is a checkpoint, not an export; run python -m train.export {folder} OUT first"
        with pytest.raises(ConfigError, match=f"^export {folder}: {advice}$"):
            load_export(str(folder))


def find_a_corner(self: object, images: list, questions: list[str], batch_size: int = 8) -> list[LocatedRegion]:
    return [LocatedRegion((0.0, 0.0, 8.0, 6.0), (0, 0, 1, 1), 0.75)] * len(images)


def test_a_localizer_says_where_to_look(
    tiny_crop_llava: Path,
    tiny_llava: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The answer is the one of the region said by hand, and so is the picture."""

    def load(name: str) -> tuple[object, object]:
        return Checkpoint.open(name).merged(), Checkpoint.open(name).processor()

    monkeypatch.setattr(answer_module, "load_export", load)
    monkeypatch.setattr("crop_model.localization.generated.Localizer.predict", find_a_corner)
    path = tmp_path / "image.png"
    noise = torch.randint(0, 256, (24, 32, 3), generator=torch.Generator().manual_seed(0))
    Image.fromarray(noise.to(torch.uint8).numpy()).save(path)

    def ask(name: str, *words: str) -> list[str]:
        asked = [f"image={path}", "question=what is the digit ?", "max_new_tokens=3"]
        main([str(tiny_crop_llava), str(tmp_path / name), *asked, *words])
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith(("Q", "A", " "))]

    by_localizer, by_hand = ask("one.png", f"localizer={tiny_llava}"), ask("two.png", "region=[0, 0, 8, 6]")
    whole = ask("whole.png")
    assert by_localizer[:2] == by_hand[:2]
    assert by_localizer[2].startswith("   region 0, 0, 8, 6, cells [0, 0, 1, 1], confidence 0.75; 0.")
    assert by_hand[2].startswith("   region 0, 0, 8, 6; 0.00 s to the region, ")
    assert whole[2].startswith("   region the whole image; 0.00 s to the region, ")
    one, two, three = ((tmp_path / name).read_bytes() for name in ("one.png", "two.png", "whole.png"))
    assert one == two != three


def test_a_question_is_collated_as_its_family_does(
    tiny_crop_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command, and in the picture of an export's card."""

    class Collating(Collator):
        pass

    def record(model: object, collator: Collator, *others: object) -> Answered:
        collators.append(type(collator))
        return answer_and_draw(model, collator, *others)

    collators: list[type] = []
    monkeypatch.setattr(Llava, "collator", Collating)
    opened = Checkpoint.open(tiny_crop_llava).merged(), Checkpoint.open(tiny_crop_llava).processor()
    monkeypatch.setattr(answer_module, "load_export", lambda name: opened)
    for module in (answer_module, proof_request):
        monkeypatch.setattr(module, "answer_and_draw", record)
    proof_request.write_request(tmp_path / "request", *proof_request.read_request(None, "what is the digit ?", None))
    proof_request.draw_request(*opened, tmp_path / "request")
    image = tmp_path / "request" / "image.png"
    main([str(tiny_crop_llava), str(tmp_path / "out.png"), f"image={image}", "question=what is the digit ?"])
    assert collators == [Collating, Collating]


def test_a_model_that_reads_no_regions_is_not_asked(tiny_qwen2_vl: Path) -> None:
    with pytest.raises(ConfigError, match="a model of type qwen2_vl reads no regions"):
        load_export(str(tiny_qwen2_vl))


def test_a_file_that_is_no_image_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    monkeypatch.setattr(answer_module, "load_export", lambda name: pytest.fail("a model was loaded"))
    path = tmp_path / "thesis.txt"
    path.write_text("years")
    with pytest.raises(SystemExit) as caught:
        main(["export", str(tmp_path / "out.png"), f"image={path}", "question=what ?"])
    assert caught.value.code == 2
    assert "thesis.txt" in capfd.readouterr().err
