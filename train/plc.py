"""Fine-tune a LLaVA on compressed visual tokens: CROP's PLC stage.

    python -m train.plc CONFIG.yaml [key=value ...]
    deepspeed --num_gpus 8 --module train.plc CONFIG.yaml deepspeed=configs/deepspeed/zero2.json

What can be wrong with a call or its data is found before the model is loaded:

    config ─► processor ─► samples ─► model ─► PlcTrainer ─► output_dir/checkpoint-<step>, output_dir/final

`config.yaml` and `environment.json` in output_dir tell what was run, and on what.
"""

from collections.abc import Sequence

from train.arguments.data import DataArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.engine.run import run

PROG = "python -m train.plc"


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point. Exit status 2: a wrong call, configuration or data; 1: the run failed once it trained; 75: a signal
    stopped it, and it can go on."""
    kinds = (ModelArguments, DataArguments, PlcTrainingArguments)
    run(argv, kinds, PROG, "Fine-tune a LLaVA on compressed visual tokens.")


if __name__ == "__main__":
    main()
