"""Convert a checkpoint of a DeepSpeed run (ZeRO-1 or 2) to one that any number of processes resumes from.

    python -m train.reshard runs/NAME/checkpoint-500 runs/NAME-on-4/checkpoint-500
    PROCESSES=4 ./launch/train.sh CONFIG.yaml output_dir=runs/NAME-on-4 resume_from_checkpoint=last

The order of the samples stays if the global batch does: per_device_train_batch_size x gradient_accumulation_steps x
processes. The random state of each process is left out: dropout masks differ from those of a run that did not move.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.common.command_line import parse_config
from data_prep.common.errors import user_errors
from train.checkpoints.universal import convert

PROG = "python -m train.reshard"


@dataclass(frozen=True)
class UniversalArguments:
    """Keys of the command line."""

    checkpoint: str = field(metadata={"help": "A whole checkpoint folder of a run under DeepSpeed."})
    out: str = field(metadata={"help": "The folder to write, named checkpoint-<step> to be found as the last one."})


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point. Exit status 2 where the folder is no whole checkpoint of DeepSpeed's ZeRO."""
    with user_errors(PROG):
        (arguments,) = parse_config(
            (UniversalArguments,),
            sys.argv[1:] if argv is None else argv,
            prog=PROG,
            description="A checkpoint for any number of processes.",
            positionals=("checkpoint", "out"),
        )
        convert(Path(arguments.checkpoint), Path(arguments.out))


if __name__ == "__main__":
    main()
