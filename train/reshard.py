"""Convert a checkpoint of a DeepSpeed run (ZeRO-1 or 2) to one that any number of processes resumes from.

    python -m train.reshard runs/NAME/checkpoint-500 runs/NAME-on-4/checkpoint-500
    PROCESSES=4 ./launch/train.sh CONFIG.yaml output_dir=runs/NAME-on-4 resume_from_checkpoint=last

The order of the samples stays if the global batch does: per_device_train_batch_size x gradient_accumulation_steps x
processes. The random state of each process is left out: dropout masks differ from those of a run that did not move.
"""

from dataclasses import dataclass, field
from pathlib import Path

from data_prep.common.command_line import command
from train.checkpoints.universal import convert


@dataclass(frozen=True)
class UniversalArguments:
    """Define the keys of the command line."""

    checkpoint: str = field(metadata={"help": "A whole checkpoint folder of a run under DeepSpeed."})
    out: str = field(metadata={"help": "The folder to write, named checkpoint-<step> to be found as the last one."})


@command("train.reshard", UniversalArguments, positionals=("checkpoint", "out"))
def main(arguments: UniversalArguments) -> None:
    """Convert a checkpoint to one that any number of processes resumes from."""
    convert(Path(arguments.checkpoint), Path(arguments.out))


if __name__ == "__main__":
    main()
