"""Time to the first token of ILP and PLC against the number of visual tokens, beside the limit that operations set.

    python tests/benchmarks/prefill.py                                     # five minutes of one core
    python tests/benchmarks/prefill.py --device cuda --samples 1 4 16      # LLaVA-1.5-7B's sizes in bf16, 40 GB

A LLaVA with random weights; on a CPU one large enough to be bound by arithmetic: 576 patches, a language model of width
1280 and 10 layers. One prefill is a prompt of one image: vision tower, compressor, projector, language model, one
logit. The full model, ILP and PLC are timed in turn, round after round, and compared within a round. On a CPU it is the
processor time of one thread that counts, which other work on the machine hardly changes; on a GPU the time from call to
result, and FastV and VisionZip are timed too. The limit is `crop_model.cost.model`'s: the ratio of MACs.
The KV cache is weighed too. Prints a Markdown table for each number of prompts at a time.
"""

import argparse
import copy
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from llava_sizes import llava_config
from wide_llava import FULL, configuration, questions

from crop_model.cost.model import ModelShape
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.training_free.base import TrainingFreeMethod
from crop_model.training_free.inside_llm import PruningConfig, prune
from crop_model.training_free.visionzip import VisionZip

BUDGETS = (192, 128, 64)
WIDTH, FFN_WIDTH, LAYERS = 1280, 3456, 10  # of the language model on a CPU
CPU_LAYER, GPU_LAYER = 1, 2  # K of 10 and of 32


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    method: str
    tokens: int  # after layer K, or before the LLM
    mean_tokens: float  # over layers
    macs: int  # of all samples
    kv_bytes: int
    run: Callable[[], int]  # one prefill; returns the bytes of its cache


@dataclass(frozen=True)
class Bench:
    """Where and how it is measured."""

    device: torch.device
    text_tokens: int
    rounds: int

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def layer(self) -> int:
        """K, from which on ILP and FastV prune."""
        return GPU_LAYER if self.on_gpu else CPU_LAYER

    def full(self) -> CropLlavaForConditionalGeneration:
        """The model on all 576 tokens."""
        torch.manual_seed(0)
        if not self.on_gpu:
            return CropLlavaForConditionalGeneration(configuration(FULL, WIDTH, FFN_WIDTH, LAYERS)).eval()
        with self.device:
            return CropLlavaForConditionalGeneration._from_config(llava_config("7b"), dtype=torch.bfloat16).eval()

    def compressing(
        self, full: CropLlavaForConditionalGeneration, budget: int, compressor_type: str = "region_ratio"
    ) -> CropLlavaForConditionalGeneration:
        """A model of that budget which shares the language model of `full`."""
        config = copy.deepcopy(full.config)
        config.compressor_type, config.token_budget, config.text_config.num_hidden_layers = compressor_type, budget, 0
        with self.device:
            model = CropLlavaForConditionalGeneration._from_config(config, dtype=full.dtype).eval()
        model.config.text_config.num_hidden_layers = full.config.text_config.num_hidden_layers
        model.model.language_model, model.lm_head = full.model.language_model, full.lm_head
        return model

    def prompt(self, model: CropLlavaForConditionalGeneration, samples: int) -> dict[str, torch.Tensor]:
        """Questions without padding."""
        config = model.config
        inputs = questions(config.token_budget, self.text_tokens, samples, config.image_token_id)
        inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return {name: value.to(self.device) for name, value in inputs.items()}

    def clock(self) -> float:
        """Seconds, once the device has done what it was given."""
        if not self.on_gpu:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()


def case(
    bench: Bench,
    name: str,
    model: CropLlavaForConditionalGeneration,
    samples: int,
    pruning: PruningConfig | None = None,
    method: TrainingFreeMethod = TrainingFreeMethod(),  # noqa: B008 - immutable
) -> Case:
    """A model, pruned or not, with what its prefill costs by formula."""
    shape, inputs = ModelShape.from_config(model.config), bench.prompt(model, samples)
    layers, text = shape.language_model.num_layers, bench.text_tokens
    if pruning is not None and pruning.rest == "attention":
        del inputs["region_mask"]  # FastV knows none

    @torch.inference_mode()
    def run() -> int:
        with ExitStack() as stack:
            if pruning is not None:
                stack.enter_context(prune(model, pruning))
            stack.enter_context(method.applied(model))
            cache = model(**inputs, use_cache=True, logits_to_keep=1).past_key_values
        return sum(states.nbytes for layer in cache.layers for states in (layer.keys, layer.values))

    tokens = model.config.token_budget
    return Case(
        name,
        tokens if pruning is None else pruning.token_budget,
        tokens if pruning is None else pruning.mean_tokens(tokens, layers),
        samples * (shape.prefill(text, 1, pruning).total + method.macs(shape)),
        samples * shape.kv_bytes(text, bytes_per_value=model.dtype.itemsize, pruning=pruning),
        run,
    )


def cases(bench: Bench, full: CropLlavaForConditionalGeneration, samples: int) -> Iterator[Case]:
    """The full model first, then every method at every budget."""
    yield case(bench, "all tokens", full, samples)
    for budget in BUDGETS:
        yield case(bench, "ILP", full, samples, PruningConfig(bench.layer, budget))
    for budget in BUDGETS:
        yield case(bench, "PLC", bench.compressing(full, budget), samples)
    if bench.on_gpu:
        budget = BUDGETS[-1]
        yield case(bench, "FastV", full, samples, PruningConfig(bench.layer, budget, "attention"))
        yield case(bench, "VisionZip", bench.compressing(full, budget, "random"), samples, method=VisionZip())


def measure(bench: Bench, measured: list[Case]) -> list[list[float]]:
    """Seconds of every case in every round, after a warm-up in which the caches are compared."""
    for one in measured:
        held = one.run()
        if held != one.kv_bytes:
            raise SystemExit(f"{one.method}, {one.tokens} tokens: KV cache of {held} bytes, predicted {one.kv_bytes}")
    seconds: list[list[float]] = [[] for _ in measured]
    for _ in range(bench.rounds):
        for one, used in zip(measured, seconds, strict=True):
            start = bench.clock()
            one.run()
            used.append(bench.clock() - start)
    return seconds


def table(measured: list[Case], seconds: list[list[float]]) -> str:
    """One line a case: medians over rounds, and the least and the most."""
    lines = [
        "| method | visual tokens after layer K | mean over layers | KV cache, MB, measured = predicted | ms | TFLOP/s "
        "| speed-up | limit | of the limit |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for one, used in zip(measured, seconds, strict=True):
        ratios = [full / this for full, this in zip(seconds[0], used, strict=True)]
        speedup, limit, median = statistics.median(ratios), measured[0].macs / one.macs, statistics.median(used)
        ms, rate = [1e3 * value for value in (median, min(used), max(used))], 2 * one.macs / 1e12 / median
        lines.append(
            f"| {one.method} | {one.tokens} | {one.mean_tokens:g} | {one.kv_bytes / 1e6:.1f} "
            f"| {ms[0]:.1f} ({ms[1]:.1f} to {ms[2]:.1f}) | {rate:.3g} "
            f"| {speedup:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {limit:.2f} | {speedup / limit:.0%} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--samples", type=int, nargs="+", default=[1], help="prompts at a time")
    parser.add_argument("--text-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(torch.device(arguments.device), arguments.text_tokens, arguments.rounds)
    full = bench.full()
    where = torch.cuda.get_device_name() if bench.on_gpu else "one thread"
    for samples in arguments.samples:
        measured = list(cases(bench, full, samples))
        seconds = measure(bench, measured)
        print(f"torch {torch.__version__}, {where}, {full.dtype}, {samples} prompt(s) of an image and ", end="")
        print(f"{bench.text_tokens} text tokens, ILP from layer {bench.layer} on, medians of {bench.rounds} rounds\n")
        print(f"{table(measured, seconds)}\n", flush=True)


if __name__ == "__main__":
    main()
