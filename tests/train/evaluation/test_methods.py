"""Rows of training-free methods: answers against the method applied by hand, names, budgets and costs."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import Tensor

from crop_model.cost.model import ModelShape
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.training_free.before_llm import BeforeLLM
from crop_model.training_free.divprune import DivPrune
from crop_model.training_free.inside_llm import PruningConfig, prune
from crop_model.training_free.methods import METHODS, training_free_method
from crop_model.training_free.visionzip import VisionZip
from tests.train.evaluation.test_evaluator import answers_one_by_one, crop_llava, read_predictions, run, write_data  # noqa: F401
from train.backbones.checkpoint import Checkpoint

PRUNED = {"layer": 1, "pruned_tokens": 5}
ILP, BLIND = {"method": "ilp", **PRUNED}, {"region_source": "global"}
CASES = {
    "ilp_thinned_k1": (ILP | {"compressor_type": "none"}, lambda model: prune(model, PruningConfig(1, 5))),
    "ilp_pooled_k1": (
        ILP | {"compressor_type": "none", "rest": "pooled"},
        lambda model: prune(model, PruningConfig(1, 5, "pooled")),
    ),
    "region_ratio+ilp_thinned_k1": (ILP, lambda model: prune(model, PruningConfig(1, 5))),
    "fastv_k1": (
        {"method": "fastv", "compressor_type": "none", **PRUNED, **BLIND},
        lambda model: prune(model, PruningConfig(1, 5, "attention")),
    ),
    "visionzip": ({"method": "visionzip", "token_budget": 5, **BLIND}, VisionZip().applied),
    "divprune": ({"method": "divprune", "token_budget": 5, **BLIND}, DivPrune().applied),
}


@pytest.mark.parametrize("name", CASES)
def test_a_row_is_the_method_applied_by_hand(name: str, crop_llava: Path, tmp_path: Path) -> None:  # noqa: F811
    row, method = CASES[name]
    data = write_data(tmp_path, ["7"])
    (result,) = run(tmp_path / "out", [{"checkpoint": str(crop_llava), **row}], data)["rows"]
    keys = {key: row[key] for key in ("compressor_type", "token_budget") if key in row}
    if name in ("visionzip", "divprune"):
        keys["compressor_type"] = "random"
    expected = answers_one_by_one(crop_llava, tmp_path, "region_source" not in row, method, **keys)
    if name != "fastv_k1":  # which without a cache chooses anew for every token
        assert [prediction["answer"] for prediction in read_predictions(tmp_path / "out", 0)] == expected
    config = Checkpoint.open(crop_llava, **keys).config
    shape, text = ModelShape.from_config(config), result["text_tokens"]
    pruning = PruningConfig(1, 5, "attention" if name == "fastv_k1" else row.get("rest", "thinned"))
    inside = name not in ("visionzip", "divprune")
    chosen = 0 if inside else METHODS[name]().macs(shape)
    assert (result["method"], result["token_budget"]) == (name, 5)
    assert result["visual_tokens"] == ((config.token_budget + 5) / 2 if inside else 5)  # K = 1 of two layers
    assert result["retention_ratio"] == result["visual_tokens"] / 64
    assert result["macs"] == shape.prefill(text, 1, pruning if inside else None).total + chosen
    assert result["kv_bytes"] == shape.kv_bytes(text, 1, 4, pruning if inside else None)


def test_a_budget_is_counted_after_the_layer_or_on_average(tiny_llava: Path) -> None:
    config = Checkpoint.open(tiny_llava, compressor_type="none").config
    after = training_free_method("ilp", layer=1, pruned_tokens=40)
    mean = training_free_method("ilp", layer=1, pruned_tokens=40, convention="mean")
    assert after.pruning(config) == PruningConfig(1, 40) and mean.pruning(config) == PruningConfig(1, 16)
    assert mean.cost(config, 9, 4)["mean_tokens"] == 40
    with pytest.raises(ValueError, match="pruned_tokens: 65 is above 64"):
        training_free_method("ilp", layer=1, pruned_tokens=65).pruning(config)


@pytest.mark.parametrize(
    ("method", "keys", "message"),
    [
        ("ilp", {"pruned_tokens": 5, "layer": 0}, "layer: expected a whole number"),
        ("ilp", {"pruned_tokens": True}, "pruned_tokens: expected a whole number"),
        ("ilp", {"pruned_tokens": 5, "rest": "none"}, "rest: 'none' is none of thinned, "),
        ("fastv", {"pruned_tokens": None}, "pruned_tokens: it goes with method ilp or fastv"),
        ("visionzip", {"pruned_tokens": 5}, "pruned_tokens: it goes with method ilp or fastv"),
        (None, {"convention": "least"}, "convention: 'least' is none of after_layer, mean"),
    ],
)
def test_keys_are_checked_whichever_method_reads_them(
    method: str | None, keys: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        training_free_method(method, **keys)


@dataclass(frozen=True)
class FirstPatches(BeforeLLM):
    """The first patches in raster order: a method of somebody else's file."""

    name = "first_patches"

    def macs(self, shape: ModelShape) -> int:
        return 7

    def choose(self, model: CropLlavaForConditionalGeneration, tower: object, features: Tensor) -> Tensor:
        return features[:, : model.model.compressor.num_tokens]


def test_a_method_of_another_file_is_a_row_once_listed(
    crop_llava: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(METHODS, "first_patches", FirstPatches)
    row = {"method": "first_patches", "token_budget": 5, **BLIND}
    data = write_data(tmp_path, ["7"])
    (result,) = run(tmp_path / "out", [{"checkpoint": str(crop_llava), **row}], data)["rows"]
    expected = answers_one_by_one(
        crop_llava, tmp_path, False, FirstPatches().applied, compressor_type="random", token_budget=5
    )
    assert [prediction["answer"] for prediction in read_predictions(tmp_path / "out", 0)] == expected
    shape = ModelShape.from_config(Checkpoint.open(crop_llava, compressor_type="random", token_budget=5).config)
    assert result["method"] == "first_patches"
    assert result["macs"] == shape.prefill(result["text_tokens"]).total + 7
