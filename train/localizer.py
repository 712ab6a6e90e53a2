"""Fine-tune a localizer: from a question to the cells of its region, see `crop_model.localization.generated`.

    python -m train.localizer CONFIG.yaml [key=value ...]
    MODULE=train.localizer ./launch/train.sh CONFIG.yaml                 under DeepSpeed, on every GPU

    data_prep.localizer_data ─► question, "[x, y, x, y]" ─► Qwen2-VL (or a LLaVA) ─► output_dir/final

The trainer is that of `train.plc`, with its keys, launchers, checkpoints and resuming.
"""

from data_prep.common.command_line import command
from train.arguments.data import DataArguments
from train.arguments.localizer import LocalizerModelArguments, LocalizerTrainingArguments
from train.engine.run import run


@command("train.localizer", LocalizerModelArguments, DataArguments, LocalizerTrainingArguments)
def main(model: LocalizerModelArguments, data: DataArguments, args: LocalizerTrainingArguments) -> None:
    """Fine-tune a localizer."""
    run(model, data, args)


if __name__ == "__main__":
    main()
