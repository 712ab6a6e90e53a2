"""Writes the card of the demo's export anew, from what its run and its evaluation left in model_card/run.

    python tests/benchmarks/write_model_card.py docs/examples/model_card

`train.export` writes the same card beside the weights; `region.png` is of that export.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from train.backbones.checkpoint import Checkpoint
from train.checkpoints.config_file import CONFIG_FILE
from train.checkpoints.environment import ENVIRONMENT_FILE
from train.engine.meter import LOG_FILE
from train.evaluation.report import read_evaluation
from train.publishing.model_card import PICTURE, write_card
from train.publishing.run_summary import RunFacts, read_run

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "model_card"
CHECKPOINT = "runs/quickstart/plc/final"


def write(folder: Path) -> None:
    """README.md and .eval_results/ into a folder that has `PICTURE`. The working directory is the project's."""
    checkpoint = Checkpoint.open(ROOT / "configs/demo_base", token_budget=28, compressor_num_attention_heads=4)
    config, processor = checkpoint.config, checkpoint.processor()
    write_card(
        folder,
        config,
        processor,
        name="crop-demo",
        checkpoint=CHECKPOINT,
        has_adapter=False,
        run=read_demo_run(),
        evaluation=read_evaluation(EXAMPLE / "run" / "evaluation.json"),
        model_license="apache-2.0",
    )


def read_demo_run() -> RunFacts | None:
    """The run as `train.export` finds it, beside its checkpoint."""
    with tempfile.TemporaryDirectory() as temporary:
        for name in (CONFIG_FILE, ENVIRONMENT_FILE, LOG_FILE):
            shutil.copy(EXAMPLE / "run" / name, temporary)
        checkpoint = Path(temporary) / Path(CHECKPOINT).name
        checkpoint.mkdir()
        return read_run(str(checkpoint))


if __name__ == "__main__":
    out = Path(sys.argv[1])
    if not (out / PICTURE).is_file():
        sys.exit(f"{out / PICTURE}: no such file")
    write(out)
