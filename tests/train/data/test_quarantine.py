"""Bad samples: which are named, what a run does about them, and what stays as it is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch.utils.data import DataLoader

from crop_model.processing_crop_llava import CropLlavaProcessor
from data_prep.common.errors import DataError
from data_prep.schema.data_source import DataSource
from data_prep.schema.sample import RegionAnnotation, sample_id, write_regions
from train.data.collator import Collator
from train.data.quarantine import BadSample, Quarantine
from train.data.samples import load_samples
from train.plc import main

SIZE = (40, 30)
GOOD = 1300


def record(image: str | None, question: str = "what is the digit ?", answer: str = "7") -> dict[str, Any]:
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"conversations": turns} | ({} if image is None else {"image": image})


def picture(path: Path, kind: str = "PNG", mode: str = "RGB", size: tuple[int, int] = SIZE, **options: Any) -> None:
    Image.new(mode, size).save(path, format=kind, **options)


def cut(path: Path, kind: str) -> None:
    noise = Image.effect_noise((400, 300), 90).convert("RGB")
    noise.save(path, format=kind)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


# What people meet (facts of the sources): name -> (the record, what is done to its image, the reason given or None).
ODD: dict[str, tuple[dict[str, Any], Callable[[Path], None] | None, str | None]] = {
    "a GIF named .jpg": (record("gif.jpg"), lambda path: picture(path, "GIF", "P"), None),
    "CMYK": (record("cmyk.jpg"), lambda path: picture(path, "JPEG", "CMYK"), None),
    "grayscale": (record("gray.png"), lambda path: picture(path, mode="L"), None),
    "transparent": (record("alpha.png"), lambda path: picture(path, mode="RGBA"), None),
    "truncated JPEG": (record("cut.jpg"), lambda path: cut(path, "JPEG"), "cut.jpg: image file is truncated"),
    "truncated PNG": (record("cut.png"), lambda path: cut(path, "PNG"), "cut.png: "),
    "no image at all": (record("text.jpg"), lambda path: path.write_text("gone"), "not an image"),
    "decompression bomb": (record("bomb.png"), lambda path: picture(path, size=(4000, 3000)), "above max_image_pixels"),
    "another size": (
        record("size.png", "how many ?"),
        lambda path: picture(path, size=(30, 40)),
        "its region is of 40x30",
    ),
    "missing": (record("gone.png"), None, "no image file"),
    "absolute path": (record("/etc/hostname"), None, "outside image_root"),
    "path that climbs": (record("../a.png"), None, "outside image_root"),
    "URL": (record("https://example.org/a.png"), None, "is a URL"),
    "over-long": (record("0.png", "what is " * 300), None, "above max_length 256"),
    "no answer": (record("0.png", "how many red ?", " "), None, "question 0 has no answer"),
    "text alone, no answer": (record(None, "how many ?", ""), None, "question 0 has no answer"),
    "image token in the answer": (record("0.png", "what ?", "an <image>"), None, "besides its 1 images"),
}
BAD = {name: case for name, case in ODD.items() if case[2] is not None}


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of which 1 % is bad: 1300 good samples, and among them one of every odd kind."""
    folder = tmp_path_factory.mktemp("dirty")
    (folder / "images").mkdir()
    records = [record(f"{number}.png", f"what is the digit ? {number % 20}") for number in range(GOOD)]
    for number in range(GOOD):
        picture(folder / "images" / f"{number}.png")
    for place, (odd, change, _) in enumerate(ODD.values()):
        records.insert(7 * place + 3, odd)
        if change is not None:
            change(folder / "images" / odd["image"])
    (folder / "data.json").write_text(json.dumps(records))
    key = sample_id("toy", "size.png", 0, "how many ?")
    write_regions(
        folder / "regions", [RegionAnnotation(key, "toy", "size.png", 0, "how many ?", *SIZE, [], None, "global")], {}
    )
    return folder


def expected(names: list[str]) -> dict[str, str]:
    """sample_id -> reason of the bad kinds."""
    keys = {}
    for name in names:
        odd, _, reason = BAD[name]
        keys[sample_id("toy", odd.get("image", ""), 0, odd["conversations"][0]["value"].strip())] = str(reason)
    return keys


@pytest.fixture
def words(plc_words: list[str], dirty: Path, tmp_path: Path) -> list[str]:
    files = {"annotations": dirty / "data.json", "image_root": dirty / "images", "regions": dirty / "regions"}
    source = json.dumps({key: str(path) for key, path in files.items()})
    more = ["max_length=256", "max_image_pixels=1000000", "num_train_epochs=1", "max_steps=-1", "eval_data=[]"]
    return [*plc_words, f"train_data=[{source}]", *more, "per_device_train_batch_size=100"]


def lines(run: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "more", [[], ["pack_length=256", "per_device_train_batch_size=10", "dataloader_num_workers=2"]]
)
def test_a_run_that_skips_ends_well_and_names_exactly_the_bad_samples(
    more: list[str], words: list[str], tmp_path: Path
) -> None:
    main([*words, *more, "on_bad_sample=skip"])
    assert (tmp_path / "run" / "final").is_dir()
    found = lines(tmp_path / "run")
    wanted = expected(list(BAD))
    assert [line["sample_id"] for line in found] == sorted(wanted)
    for line in found:
        assert wanted[line["sample_id"]] in line["reason"]
        assert "record " in line["reason"]
        assert list(line) == ["sample_id", "image", "reason"]
    assert {Path(line["image"]).name for line in found} >= {"cut.jpg", "gone.png", "hostname", "size.png"}


def test_a_run_that_raises_stops_at_the_first_with_its_name(words: list[str], capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    first = next(number for number, (_, change, reason) in enumerate(ODD.values()) if reason and change is None)
    assert f"data.json: record {7 * first + 3}: no image file" in capfd.readouterr().err


@pytest.mark.parametrize(("fraction", "status"), [(0.003, 2), (0.008, 1)])
def test_above_the_ceiling_it_stops(
    fraction: float, status: int, words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """Of 1317 samples 8 are bad to the loader, 5 more to the run."""
    with pytest.raises(SystemExit) as caught:
        main([*words, "on_bad_sample=skip", f"max_bad_fraction={fraction}"])
    assert caught.value.code == status
    run = tmp_path / "run"
    line = capfd.readouterr().err.splitlines()[-1]
    assert f"of {GOOD + len(ODD)} samples are bad, above max_bad_fraction {fraction}: see {run}" in line
    assert len(lines(run)) > fraction * (GOOD + len(ODD))


# ---- empty places


@pytest.fixture(scope="module")
def processor(tiny_llava: Path) -> CropLlavaProcessor:
    return CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=16)


@pytest.fixture
def pair(tmp_path: Path, processor: CropLlavaProcessor) -> list[dict[str, Any]]:
    """A good sample and one whose image is broken after it was found."""
    (tmp_path / "images").mkdir()
    for name in ("a.png", "b.png"):
        picture(tmp_path / "images" / name)
    (tmp_path / "data.json").write_text(json.dumps([record("a.png"), record("b.png")]))
    rows = load_samples([DataSource(str(tmp_path / "data.json"), str(tmp_path / "images"))], processor, 256)
    (tmp_path / "images" / "b.png").write_text("gone")
    return list(rows)


def test_a_bad_sample_leaves_an_empty_place(pair: list[dict[str, Any]], processor: CropLlavaProcessor) -> None:
    """So that every batch is there on every process, and its good samples are as they would be without it."""
    collator = Collator(processor, skip_bad=True)
    alone, both, none = collator(pair[:1]), collator(pair), collator(pair[1:])
    assert "bad_samples" not in alone
    for batch in (both, none):
        assert [sample.sample_id for sample in batch["bad_samples"]] == [pair[1]["sample_id"]]
        assert (batch["labels"][-1] == -100).all()
        assert batch["attention_mask"][-1].sum() == 1
    for name in ("input_ids", "labels", "attention_mask"):
        assert torch.equal(both[name][:1], alone[name])
    assert torch.equal(both["pixel_values"], alone["pixel_values"])
    assert both["sample_ids"] == alone["sample_ids"]
    assert "pixel_values" not in none
    packed, alone = collator([pair, pair[1:]]), collator([pair[:1]])
    assert torch.equal(packed["input_ids"][:1], alone["input_ids"])
    assert (packed["labels"][1] == -100).all()
    with pytest.raises(DataError, match=r"record 1 .*b.png: not an image"):
        Collator(processor)(pair)


def test_workers_tell_what_they_found(pair: list[dict[str, Any]], processor: CropLlavaProcessor) -> None:
    loader: Any = DataLoader(pair, 1, collate_fn=Collator(processor, skip_bad=True), num_workers=2)  # type: ignore[arg-type]
    assert [[sample.image for sample in batch.get("bad_samples", [])] for batch in loader] == [[], pair[1]["images"]]


# ---- the file


def test_the_file_is_sorted_whole_and_resumed(tmp_path: Path) -> None:
    path = tmp_path / "quarantine.jsonl"
    path.write_text("of an earlier run")
    found = [BadSample(key, "a.png", f"record {key}") for key in "cab"]
    quarantine = Quarantine(path, total=10, max_bad_fraction=0.4, writes=True, resumed=False)
    assert not path.exists()
    quarantine.collect(found[:2], Accelerator(cpu=True))
    quarantine.collect([found[0], found[2], found[2]], Accelerator(cpu=True))
    assert [line["sample_id"] for line in lines(tmp_path)] == ["a", "b", "c"]
    again = Quarantine(path, total=10, max_bad_fraction=0.4, writes=False, resumed=True)
    assert again.samples == {sample.sample_id: sample for sample in found}
    again.add([BadSample("d", "", "record d")])
    assert len(lines(tmp_path)) == 3  # another process writes
    with pytest.raises(DataError, match=f"5 of 10 samples are bad, above max_bad_fraction 0.4: see {path}"):
        again.add([BadSample("e", "", "record e")])
