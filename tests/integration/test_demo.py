"""What the demo has to show before any fine-tuning: the shipped base reads, and regions are what keeps it reading."""

from pathlib import Path

import pytest

from data_prep.demo import DemoArguments, write_demo
from data_prep.schema.data_source import DataSource
from train.arguments.data import DataArguments
from train.evaluation.arguments import EvaluateArguments, RowGroup
from train.evaluation.evaluator import evaluate

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("demo")]

BASE = str(Path(__file__).parents[2] / "configs" / "demo_base")
ONE_NINTH = 28


@pytest.fixture(scope="module")
def accuracy(tmp_path_factory) -> dict[tuple[str, str], float]:
    """By compressor type and region source, on 420 held-out questions; no model has seen a compressed image."""
    out = tmp_path_factory.mktemp("demo")
    write_demo(out, DemoArguments(train_images=1, test_images=70))
    rows = [
        RowGroup(BASE, "none", region_source="global"),
        RowGroup(BASE, ["region_ratio", "uniform", "random"], ONE_NINTH),
        RowGroup(BASE, "region_ratio", ONE_NINTH, "random"),
    ]
    source = DataSource(str(out / "test.json"), str(out / "images"), str(out / "regions" / "test"))
    arguments = EvaluateArguments(rows=rows, output_dir=str(out / "evaluation"), max_new_tokens=4, ttft_samples=0)
    result = evaluate(arguments, DataArguments(eval_data=[source]))
    return {(row["method"], row["region_source"]): row["accuracy"] for row in result["rows"]}


def test_the_base_reads_on_full_tokens(accuracy):
    assert accuracy["none", "global"] > 0.88  # 0.93 on 1,500 questions


def test_untrained_compression_keeps_what_the_region_holds(accuracy):
    assert accuracy["region_ratio", "oracle"] > 0.9 * accuracy["none", "global"]


def test_without_its_region_the_same_model_fails(accuracy):
    """The negative control: the same tokens, spent elsewhere."""
    assert accuracy["region_ratio", "random"] < accuracy["region_ratio", "oracle"] - 0.3
    assert accuracy["uniform", "oracle"] < accuracy["region_ratio", "oracle"] - 0.3
    assert accuracy["random", "oracle"] < accuracy["region_ratio", "oracle"] - 0.3
