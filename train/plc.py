"""Fine-tune a LLaVA on compressed visual tokens: CROP's PLC stage.

    python -m train.plc CONFIG.yaml [key=value ...]
    deepspeed --num_gpus 8 --module train.plc CONFIG.yaml deepspeed=configs/deepspeed/zero2.json

    config ─► processor ─► samples ─► model ─► PlcTrainer ─► output_dir/checkpoint-<step>, output_dir/final

`config.yaml` and `environment.json` in output_dir state what was run, and on what.
"""

from data_prep.common.command_line import command
from train.arguments.data import DataArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.engine.run import run


@command("train.plc", ModelArguments, DataArguments, PlcTrainingArguments)
def main(model: ModelArguments, data: DataArguments, args: PlcTrainingArguments) -> None:
    """Fine-tune a LLaVA on compressed visual tokens."""
    run(model, data, args)


if __name__ == "__main__":
    main()
