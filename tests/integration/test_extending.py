"""docs/extending.md, followed in a copy of the checkout: what each of its examples leaves."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from data_prep.schema.sample import read_regions
from tests.page import ROOT, follow

pytestmark = pytest.mark.integration


def write_qwen2_5_vl(tiny_qwen2_vl: Path, folder: Path) -> None:
    """Write random weights beside the processor of a tiny Qwen2-VL."""
    shutil.copytree(tiny_qwen2_vl, folder, ignore=shutil.ignore_patterns("model*", "*config.json"))
    shutil.copy(tiny_qwen2_vl / "tokenizer_config.json", folder)
    shutil.copy(tiny_qwen2_vl / "preprocessor_config.json", folder)
    stored = json.loads((tiny_qwen2_vl / "config.json").read_text())
    tower = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "out_hidden_size": 32, "num_heads": 2}
    patches = {"patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1]}
    text = {key: value for key, value in stored["text_config"].items() if key != "model_type"}
    tokens = {key: value for key, value in stored.items() if key.endswith("_token_id")}
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(vision_config=tower | patches, text_config=text, **tokens)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def printed(tiny_qwen2_vl: Path, checkout: Path) -> str:
    write_qwen2_5_vl(tiny_qwen2_vl, checkout / "mine" / "qwen2_5_vl")
    return follow("extending.md", checkout)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    for package in ("crop_model", "data_prep", "train"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("configs", "docs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.mark.usefixtures("printed")
def test_the_source_is_annotated(checkout: Path) -> None:
    table = read_regions(checkout / "mine" / "regions")
    found = {row.question: (row.method, row.region) for row in table.values()}
    assert found == {
        "Which digit is in the red frame?": ("human", (40, 30, 120, 90)),
        "Is any digit larger?": ("human", (200, 40, 320, 100)),
        "How many digits are there?": ("global", None),
    }
    assert list((checkout / "mine" / "regions" / "samples").glob("*.parquet"))


@pytest.mark.usefixtures("printed")
def test_the_benchmark_is_asked_and_scored(checkout: Path) -> None:
    (row,) = json.loads((checkout / "mine" / "evaluation" / "evaluation.json").read_text())["rows"]
    assert row["benchmarks"]["signs"]["n"] == 2
    assert 0 <= row["benchmarks"]["signs"]["score"] <= 1


@pytest.mark.usefixtures("printed")
def test_the_compressor_trains_and_has_a_cost(checkout: Path) -> None:
    mine = checkout / "mine"
    gain = load_file(mine / "run" / "final" / "model.safetensors")["model.compressor.gain"]
    assert (gain != 1).any()
    (line,) = (json.loads(line) for line in (mine / "run" / "train_log.jsonl").open())
    assert (line["step"], line["train_loss"] > 0) == (1, True)
    (row,) = json.loads((mine / "every_nth" / "evaluation.json").read_text())["rows"]
    assert (row["method"], row["visual_tokens"]) == ("every_nth", 28)
    assert row["macs"] > 0


def test_the_backbone_opens_and_localizes(printed: str) -> None:
    assert printed.splitlines()[-1].startswith("Qwen2.5-VL [LocatedRegion(region=")
