"""The trainer on what `data_prep.annotate` made: native sources by their samples, mixes by their own files."""

import importlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_prep.schema.data_source import DataSource
from data_prep.schema.sample import read_regions
from data_prep.sources import SOURCES
from data_prep.sources.llava_mix import LlavaMix
from data_prep.sources.ms_swift import MsSwift
from data_prep.unpack import main as unpack
from tests.data_prep.fixtures import annotated
from train.data.rows import read_rows
from train.plc import main

NATIVE = ("gqa", "textvqa", "vqav2", "vizwiz", "visual_cot", "docvqa")


@pytest.fixture
def native(tmp_path: Path) -> list[dict[str, Any]]:
    """Six native sources, annotated, as items of `train_data`."""
    items = []
    for name in NATIVE:
        folder = tmp_path / name
        folder.mkdir()
        out = annotated(importlib.import_module(f"tests.data_prep.fixtures.{name}").make(folder), folder)
        items.append(
            {
                "annotations": str(out / "samples" / "*.parquet"),
                "image_root": str(folder / "images"),
                "regions": str(out),
            }
        )
    return items


def conversation(*turns: tuple[str, str]) -> list[dict[str, str]]:
    return [
        {"from": speaker, "value": text} for turn in turns for speaker, text in zip(("human", "gpt"), turn, strict=True)
    ]


def test_a_mixture_of_sources_trains(
    native: list[dict[str, Any]], plc_words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Text alone, several turns of one image with regions joined from GQA, two images: all in one run."""
    gqa_out = Path(native[0]["regions"])
    rows = [row for row in read_regions(gqa_out).values() if row.region is not None]
    row = rows[0]
    mix = tmp_path / "mix.json"
    mix.write_text(
        json.dumps(
            [
                {"id": "t", "conversations": conversation(("What is red ?", "a colour"), ("And blue ?", "too"))},
                {
                    "id": "m",
                    "image": f"gqa/{row.image}",
                    "conversations": conversation(
                        (f"<image>\n{row.question}\nAnswer with a single word.", "yes"),
                        ("Is [0.4, 0.4, 0.6, 0.6] red ?", "no"),
                    ),
                },
            ]
        )
    )
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "gqa").symlink_to(native[0]["image_root"])
    joined = annotated(
        LlavaMix(str(mix), joins=[f"gqa/={gqa_out}"]), tmp_path / "mix", image_root=str(tmp_path / "root")
    )
    table = {row.turn: row for row in read_regions(joined).values()}
    assert table[0].region == row.region
    assert table[1].method == "human"

    swift = tmp_path / "swift.jsonl"
    image = row.image
    swift.write_text(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": "<image><image>what is the digit ?"},
                    {"role": "assistant", "content": "7"},
                ],
                "images": [image, image],
                "objects": {"ref": ["digit"], "bbox": [[1, 2, 9, 9]]},
            }
        )
        + "\n"
    )
    two = annotated(MsSwift(str(swift)), tmp_path / "two", image_root=native[0]["image_root"])
    mixture = [
        *native,
        {"annotations": str(mix), "image_root": str(tmp_path / "root"), "regions": str(joined), "weight": 2},
        {"annotations": str(swift), "image_root": native[0]["image_root"], "regions": str(two)},
    ]
    main([*plc_words, f"train_data={json.dumps(mixture)}", "max_steps=6"])
    lines = [json.loads(line) for line in (tmp_path / "run" / "train_log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 6
    assert all(0 < loss < 20 for loss in losses)


@pytest.mark.parametrize("name", SOURCES)
def test_the_trainer_finds_every_region(name: str, tmp_path: Path) -> None:
    """What the trainer reads and what annotation wrote of the same source, question by question.

    A native source's samples are exactly the rows with an answer. Of a file that the trainer reads itself, every
    question has its row: what became none is passed over.
    """
    fixture = importlib.import_module(f"tests.data_prep.fixtures.{name}")
    reader = fixture.make(tmp_path)
    out = annotated(reader, tmp_path)
    table = read_regions(out)
    samples = out / "samples"
    annotations = next(iter(reader.files())) if reader.trains_itself else samples / "*.parquet"
    if not reader.trains_itself and not samples.exists():
        return  # nothing but boxes: for a localizer
    if name == "llava_next":
        annotations = tmp_path / "llava_next.jsonl"
        unpack([str(reader.annotations), str(tmp_path / "images"), f"conversations={annotations}"])
    source = DataSource(str(annotations), str(tmp_path / "images"), str(out))
    rows = [row for row in read_rows(source, split_turns=True) if row["images"]]
    assert rows
    assert not [row["bad"] for row in rows if row["bad"]]
    for row in rows:
        annotation = table[row["sample_id"]]
        assert (annotation.question, len(annotation.sample_id)) == (row["question"], 40)
        assert row["region"] == (None if annotation.region is None else pytest.approx(annotation.region))
    answered = {row["sample_id"] for row in rows}
    if name == "llava_next":  # unpacking refused a row that would have overwritten another one's image
        assert len(set(table) - answered) == 1
    elif reader.trains_itself:
        assert answered == set(table)
    else:
        kept = {row["id"] for part in samples.glob("*.parquet") for row in pq.read_table(part).to_pylist()}
        assert answered == kept <= set(table)
