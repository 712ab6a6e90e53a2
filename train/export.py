"""Export a checkpoint to a folder, or Hub repository, that loads without this project.

    python -m train.export CHECKPOINT OUT [push_to=owner/name] [key=value ...]

CHECKPOINT is a run's final/ or any of its checkpoint-<step>/, of any ZeRO stage and number of processes. What an
export holds: `train.publishing.exporter`.
"""

from safetensors import SafetensorError

from data_prep.common.command_line import command
from data_prep.common.errors import RunError
from train.publishing.arguments import ExportArguments
from train.publishing.exporter import export


@command("train.export", ExportArguments, positionals=("checkpoint", "out"))
def main(arguments: ExportArguments) -> None:
    """Export a checkpoint to a folder that loads without this project."""
    try:
        export(arguments)
    except SafetensorError as error:  # while weights are written: a full disk
        raise RunError(f"out: {arguments.out}: {error}") from None


if __name__ == "__main__":
    main()
