"""Export a checkpoint to a folder, or Hub repository, that loads without this project.

    python -m train.export CHECKPOINT OUT [push_to=owner/name] [key=value ...]

CHECKPOINT is a run's final/ or any of its checkpoint-<step>/, of any ZeRO stage and number of processes. What an
export holds: `train.publishing.exporter`.
"""

import sys
from collections.abc import Sequence

from safetensors import SafetensorError

from data_prep.common.command_line import parse_config
from data_prep.common.errors import ExportError, RunError, user_errors
from train.publishing.arguments import ExportArguments
from train.publishing.exporter import export

PROG = "python -m train.export"


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exit status 2 for a wrong call, 1 where the export does not hold."""
    with user_errors(PROG):
        (arguments,) = parse_config(
            (ExportArguments,),
            sys.argv[1:] if argv is None else argv,
            prog=PROG,
            description="Export a checkpoint to a folder that loads without this project.",
            positionals=("checkpoint", "out"),
        )
        try:
            export(arguments)
        except ExportError as error:
            raise RunError(str(error)) from None
        except SafetensorError as error:  # while weights are written: a full disk
            raise RunError(f"out: {arguments.out}: {error}") from None


if __name__ == "__main__":
    main()
