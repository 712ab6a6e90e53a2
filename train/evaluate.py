"""Answer the same questions with any set of checkpoints, budgets and region sources; train nothing.

    python -m train.evaluate CONFIG.yaml [key=value ...]
    torchrun --nproc_per_node 8 --module train.evaluate CONFIG.yaml    or `deepspeed --module`: the questions are shared

Answers are generated greedily. Those of eval_data are correct if they match exactly after
`train.evaluation.metrics.matching.normalize_answer`; those of `benchmarks` are scored by each one's metric.
"""

from accelerate import PartialState

from data_prep.common.command_line import command
from train.arguments.data import DataArguments
from train.evaluation.arguments import EvaluateArguments
from train.evaluation.evaluator import evaluate


@command("train.evaluate", EvaluateArguments, DataArguments)
def main(arguments: EvaluateArguments, data: DataArguments) -> None:
    """Answer the same questions with any set of checkpoints, budgets and region sources."""
    evaluate(arguments, data)
    PartialState().destroy_process_group()  # as in `train.plc`


if __name__ == "__main__":
    main()
