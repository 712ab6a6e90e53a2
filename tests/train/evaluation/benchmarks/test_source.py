"""A benchmark in a configuration: what it is filled from, and what is refused before anything is read."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from data_prep.common.command_line import parse_config
from data_prep.common.errors import ConfigError
from tests.train.evaluation.benchmarks.official import PUBLISHED
from train.evaluation.benchmarks import BENCHMARKS
from train.evaluation.benchmarks.source import BenchmarkSource
from train.evaluation.metrics.table import METRICS


@dataclass
class Keys:
    benchmarks: list[BenchmarkSource] = field(default_factory=list)


def test_filled_from_a_configuration_file(tmp_path: Path) -> None:
    config = tmp_path / "evaluation.yaml"
    config.write_text(
        f"benchmarks:\n  - {{name: textvqa, path: {tmp_path}, image_root: images, ocr_tokens: true}}\n"
        f"  - {{name: gqa, path: {tmp_path}, image_root: images}}\n"
    )
    (keys,) = parse_config((Keys,), [str(config)], prog="test", description="")
    assert keys.benchmarks == [
        BenchmarkSource("textvqa", str(tmp_path), "images", ocr_tokens=True),
        BenchmarkSource("gqa", str(tmp_path), "images"),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "okvqa"}, "name: 'okvqa' is none of docvqa, gqa"),
        ({"path": "nowhere"}, "path: no such file or folder: nowhere"),
        ({"ocr_tokens": "yes"}, "ocr_tokens: expected true or false, got 'yes'"),
        ({"split": "val"}, r"split: unknown key, none of \['name'"),
        ({"image_root": None}, "image_root: may not be null"),
        ({"image_root": ""}, "image_root: expected a path, got ''"),
    ],
)
def test_a_wrong_key_is_named(change: dict[str, str], message: str, tmp_path: Path) -> None:
    keys = {"name": "textvqa", "path": str(tmp_path), "image_root": "images"} | change
    with pytest.raises(ConfigError, match=rf"^command line: benchmarks\.0\.{message}"):
        parse_config((Keys,), [f"benchmarks=[{json.dumps(keys)}]"], prog="test", description="")


@pytest.mark.parametrize("key", ["name", "path", "image_root"])
def test_three_keys_are_required(key: str, tmp_path: Path) -> None:
    keys = {"name": "gqa", "path": str(tmp_path), "image_root": "images"}
    del keys[key]
    with pytest.raises(ConfigError, match=rf"^command line: benchmarks\.0\.{key}: is required$"):
        parse_config((Keys,), [f"benchmarks=[{json.dumps(keys)}]"], prog="test", description="")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_only_textvqa_has_text_for_its_prompts(name: str, tmp_path: Path) -> None:
    PUBLISHED[name]().write(tmp_path, name)
    if name == "textvqa":
        assert BenchmarkSource(name, str(tmp_path), str(tmp_path), ocr_tokens=True).ocr_tokens
        return
    with pytest.raises(ConfigError, match=f"ocr_tokens: {name} comes without"):
        BenchmarkSource(name, str(tmp_path), str(tmp_path), ocr_tokens=True)


def test_every_metric_is_one_that_there_is() -> None:
    assert {benchmark.metric for benchmark in BENCHMARKS.values()} == METRICS.keys()
