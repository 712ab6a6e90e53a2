"""Time to the first token of ILP and PLC against the number of visual tokens, beside the limit that operations set.

    python docs/benchmarks/prefill.py                                     # five minutes of one core

A LLaVA with random weights, large enough to be bound by arithmetic: 576 patches, a language model of width 1280 and 10
layers. One prefill is a prompt of one image: vision tower, compressor, projector, language model, one logit. The full
model, ILP and PLC are timed in turn, round after round, and compared within a round; it is the processor time of one
thread that counts, which other work on the machine hardly changes. The limit is `crop_model.cost`'s: the ratio of
multiply-accumulates. The KV cache is weighed too. Prints a Markdown table.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from wide_llava import FULL, configuration, questions

from crop_model.cost import ModelShape
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.pruning import PruningConfig, prune

BUDGETS = (192, 128, 64)
LAYER = 1  # of 10; LLaVA-1.5-7B prunes from 2 or 3 of 32


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    method: str
    tokens: int  # after layer K, or before the LLM
    mean_tokens: float  # over layers
    macs: int
    kv_bytes: int
    run: Callable[[], int]  # one prefill; returns the bytes of its cache


def build(budget: int) -> CropLlavaForConditionalGeneration:
    """The model with `budget` visual tokens an image; all 576 of them means no compressor."""
    torch.manual_seed(0)
    config = configuration(budget, width=1280, ffn_width=3456, layers=10)
    return CropLlavaForConditionalGeneration(config).eval()


def prompt(visual_tokens: int, text_tokens: int) -> dict[str, torch.Tensor]:
    """One question without padding."""
    inputs = questions(visual_tokens, text_tokens)
    return {**inputs, "attention_mask": torch.ones_like(inputs["input_ids"])}


def case(
    method: str, model: CropLlavaForConditionalGeneration, text_tokens: int, pruning: PruningConfig | None = None
) -> Case:
    """A model, pruned or not, with what its prefill costs by formula."""
    shape, inputs = ModelShape.from_config(model.config), prompt(model.config.token_budget, text_tokens)
    layers = shape.language_model.num_layers

    @torch.inference_mode()
    def run() -> int:
        with ExitStack() as stack:
            if pruning is not None:
                stack.enter_context(prune(model, pruning))
            cache = model(**inputs, use_cache=True, logits_to_keep=1).past_key_values
        return sum(states.nbytes for layer in cache.layers for states in (layer.keys, layer.values))

    tokens = model.config.token_budget
    return Case(
        method,
        tokens if pruning is None else pruning.token_budget,
        tokens if pruning is None else pruning.mean_tokens(tokens, layers),
        shape.prefill(text_tokens, pruning=pruning).total,
        shape.kv_bytes(text_tokens, bytes_per_value=4, pruning=pruning),
        run,
    )


def cases(text_tokens: int) -> list[Case]:
    """The full model first, then ILP and PLC at every budget."""
    full = build(FULL)
    pruned = [case("ILP", full, text_tokens, PruningConfig(LAYER, budget)) for budget in BUDGETS]
    compressed = [case("PLC", build(budget), text_tokens) for budget in BUDGETS]
    return [case("all tokens", full, text_tokens), *pruned, *compressed]


def measure(measured: list[Case], rounds: int) -> list[list[float]]:
    """Processor seconds of every case in every round, after a warm-up in which the caches are compared."""
    for one in measured:
        held = one.run()
        if held != one.kv_bytes:
            raise SystemExit(f"{one.method}, {one.tokens} tokens: KV cache of {held} bytes, predicted {one.kv_bytes}")
    seconds: list[list[float]] = [[] for _ in measured]
    for _ in range(rounds):
        for one, used in zip(measured, seconds, strict=True):
            start = time.process_time()
            one.run()
            used.append(time.process_time() - start)
    return seconds


def table(measured: list[Case], seconds: list[list[float]]) -> str:
    """One line a case: medians over rounds, and the least and the most."""
    lines = [
        "| method | visual tokens after layer K | mean over layers | KV cache, MB, measured = predicted | processor s "
        "| GFLOP/s | speed-up | limit | of the limit |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one, used in zip(measured, seconds, strict=True):
        ratios = [full / this for full, this in zip(seconds[0], used, strict=True)]
        speedup, limit, median = statistics.median(ratios), measured[0].macs / one.macs, statistics.median(used)
        lines.append(
            f"| {one.method} | {one.tokens} | {one.mean_tokens:g} | {one.kv_bytes / 1e6:.1f} "
            f"| {median:.2f} ({min(used):.2f} to {max(used):.2f}) | {2 * one.macs / 1e9 / median:.0f} "
            f"| {speedup:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {limit:.2f} | {speedup / limit:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    measured = cases(arguments.text_tokens)
    seconds = measure(measured, arguments.rounds)
    print(
        f"torch {torch.__version__}, one thread, float32, one image and {arguments.text_tokens} text tokens, ILP from ",
        end="",
    )
    print(f"layer {LAYER} on, medians of {arguments.rounds} rounds (least to most)\n")
    print(table(measured, seconds))


if __name__ == "__main__":
    main()
