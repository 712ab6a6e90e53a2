"""Rows filled by a localizer: the same bytes for any number of processes and interruptions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from crop_model.localization.detected import THRESHOLD, ZeroShotLocalizer
from crop_model.localization.generated import Localizer
from data_prep import localize as module
from data_prep.localize import LocalizeArguments, localize, main
from data_prep.schema.sample import RegionAnnotation, read_regions, sample_id, write_regions
from tests.tiny_models import owlv2
from train.export import main as export

ROOT = Path(__file__).parents[2]
QUESTIONS = 10  # three pieces of four rows at most


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's base as if it were a localizer: its boxes are bad, but not all the same."""
    folder = tmp_path_factory.mktemp("localizer")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("train.publishing.exporter.prove", lambda *arguments: 0.0)  # integration/test_export.py
        from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
        from crop_model.processing_crop_llava import CropLlavaProcessor

        base = ROOT / "configs" / "demo_base"
        options = {"compressor_type": "none", "token_budget": 256}
        CropLlavaForConditionalGeneration.from_pretrained(base, **options).save_pretrained(folder / "whole")
        CropLlavaProcessor.from_pretrained(base, token_budget=256).save_pretrained(folder / "whole")
        export([str(folder / "whole"), str(folder / "export")])
    return folder / "export"


@pytest.fixture
def words(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(module, "ROWS_PER_PIECE", 4)
    rows = []
    for number in range(QUESTIONS):
        name, text = f"{number}.png", f"Which digit is at B{number % 8 + 1}?"
        noise = torch.randint(0, 256, (100, 120, 3), generator=torch.Generator().manual_seed(number))
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(noise.to(torch.uint8).numpy()).save(tmp_path / "images" / name)
        key = sample_id("toy", name, 0, text)
        if number < 2:  # the annotator knew
            box = (3.0, 4.0, 50.0, 60.0)
            rows.append(RegionAnnotation(key, "toy", name, 0, text, 120, 100, [box], box, "human"))
        else:
            rows.append(RegionAnnotation(key, "toy", name, 0, text, 120, 100, [], None, "global", 1.0, ["no_evidence"]))
    write_regions(tmp_path / "regions", rows, {})
    keys = [f"localizer={exported}", f"image_root={tmp_path / 'images'}", "batch_size=2"]
    return [str(tmp_path / "regions"), str(tmp_path / "out"), *keys]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def arguments(words: list[str]) -> LocalizeArguments:
    regions, out, *keys = words
    values = dict(word.split("=", 1) for word in keys)
    return LocalizeArguments(regions, out, values["localizer"], values["image_root"], batch_size=2, rows="all")


def test_unknown_rows_are_filled_and_the_others_stay(words: list[str], exported: Path, tmp_path: Path) -> None:
    main(words)
    before, after = read_regions(tmp_path / "regions"), read_regions(tmp_path / "out")
    localizer = Localizer.from_pretrained(str(exported))
    assert list(before) == list(after)
    for key, row in after.items():
        if before[key].method == "human":
            assert row == before[key]
            continue
        with Image.open(tmp_path / "images" / row.image) as image:
            (alone,) = localizer.predict([image.convert("RGB")], [row.question])
        assert row.method == "localizer" and row.flags == []
        assert row.region == (None if alone.region is None else pytest.approx(alone.region))
        assert row.score == pytest.approx(alone.confidence, rel=1e-4)
    assert not list(tmp_path.glob(".out*"))


def test_processes_and_interruptions_change_no_byte(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    localize(arguments(words))
    expected = content(tmp_path / "out")

    words[1] = str(tmp_path / "shared")
    localize(arguments(words), 1, 2)
    assert not (tmp_path / "shared").exists()  # the first process writes it, with what the second has found
    localize(arguments(words), 0, 2)
    assert content(tmp_path / "shared") == expected

    words[1] = str(tmp_path / "again")
    find, calls = module._predict, []

    def killed(*args: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return find(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_predict", killed)
    with pytest.raises(KeyboardInterrupt):
        localize(arguments(words))
    assert not (tmp_path / "again").exists()
    localize(arguments(words))
    assert len(calls) == 2 + 2  # of three pieces, the first was not made again
    assert content(tmp_path / "again") == expected


def test_another_piece_is_seen(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative control: what a piece holds is what the sidecar gets."""
    localize(arguments(words))
    expected = content(tmp_path / "out")
    words[1] = str(tmp_path / "other")
    find = module._predict
    monkeypatch.setattr(module, "_predict", lambda *args: list(reversed(find(*args))))
    localize(arguments(words))
    assert content(tmp_path / "other") != expected


def test_a_region_below_the_threshold_is_the_whole_image(words: list[str], tmp_path: Path) -> None:
    main([*words, "threshold=1"])
    rows = [row for row in read_regions(tmp_path / "out").values() if row.method == "localizer"]
    assert len(rows) == QUESTIONS - 2
    assert all(row.region is None and row.flags == ["low_confidence"] for row in rows)


def test_a_detector_fills_rows_of_its_own_method(words: list[str], tmp_path: Path) -> None:
    detector = owlv2()
    detector.model.save_pretrained(tmp_path / "detector")
    detector.processor.save_pretrained(tmp_path / "detector")
    words[2] = f"localizer={tmp_path / 'detector'}"
    main([*words, "localizer_kind=zero_shot"])
    rows = [row for row in read_regions(tmp_path / "out").values() if row.method == "zero_shot"]
    assert len(rows) == QUESTIONS - 2
    assert all(row.region is not None for row in rows)
    localizer = ZeroShotLocalizer.from_pretrained(str(tmp_path / "detector"))
    for row in rows:
        with Image.open(tmp_path / "images" / row.image) as image:
            (alone,) = localizer.predict([image.convert("RGB")], [row.question])
        assert row.region == (None if alone.region is None else pytest.approx(alone.region, abs=1e-3))
        assert row.flags == ([] if row.score >= THRESHOLD else ["low_confidence"])


def test_pieces_of_other_keys_are_refused(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "write_regions", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        localize(arguments(words))
    with pytest.raises(SystemExit) as ended:
        main([*words, "threshold=0.5"])
    assert ended.value.code == 2
    assert "holds the pieces of other data or keys" in capsys.readouterr().err


WRONG = {
    "no sidecar": ({0: "nowhere"}, [], "regions: no such folder: nowhere"),
    "itself": ({1: "REGIONS"}, [], "out: is the sidecar that is read"),
    "batch": ({}, ["batch_size=3"], "batch_size: 3 does not divide"),
    "threshold": ({}, ["threshold=2"], "threshold: expected a probability, got 2.0"),
    "localizer": ({}, ["localizer=nowhere"], "localizer nowhere: "),
    "kind": ({}, ["localizer_kind=zero_shot"], "a model of type crop_llava is no zero-shot localizer"),
    "no kind": ({}, ["localizer_kind=dino"], "localizer_kind: expected 'trained' or 'zero_shot', got 'dino'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_call_is_one_line(
    case: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replaced, more, message = WRONG[case]
    for place, word in replaced.items():
        words[place] = str(tmp_path / "regions") if word == "REGIONS" else word
    taken = {word.split("=")[0] for word in more}
    kept = [word for word in words if word.split("=")[0] not in taken]
    with pytest.raises(SystemExit) as ended:
        main([*kept, *more])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["missing", "other size", "no image"])
def test_a_bad_image_is_named(
    damage: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "images" / "5.png"
    if damage == "missing":
        path.unlink()
    elif damage == "other size":
        Image.new("RGB", (7, 7)).save(path)
    else:
        path.write_bytes(b"nothing")
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "5.png" in line and "sample " in line


@pytest.mark.integration
def test_two_processes_of_torchrun_write_what_one_does(words: list[str], tmp_path: Path) -> None:
    main(words)
    expected = content(tmp_path / "out")
    words[1] = str(tmp_path / "two")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*launcher, "--module", "data_prep.localize", *words], cwd=ROOT, env=environment, check=True)
    two = content(tmp_path / "two")
    assert two.keys() == expected.keys()
    assert two["part-00000.parquet"] == expected["part-00000.parquet"]
