"""Fine-tune a localizer: from a question to the cells of its region, see `crop_model.localization.generated`.

    python -m train.localizer CONFIG.yaml [key=value ...]
    MODULE=train.localizer ./launch/train.sh CONFIG.yaml                 under DeepSpeed, on every GPU

    data_prep.localizer_data ─► question, "[x, y, x, y]" ─► Qwen2-VL (or a LLaVA) ─► output_dir/final

The trainer is that of `train.plc`, with its keys, launchers, checkpoints and resuming.
"""

from collections.abc import Sequence

from train.arguments.data import DataArguments
from train.arguments.localizer import LocalizerModelArguments, LocalizerTrainingArguments
from train.engine.run import run

PROG = "python -m train.localizer"


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point, with the exit statuses of `train.plc`."""
    kinds = (LocalizerModelArguments, DataArguments, LocalizerTrainingArguments)
    run(argv, kinds, PROG, "Fine-tune a localizer.")


if __name__ == "__main__":
    main()
