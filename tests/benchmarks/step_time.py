"""Time of a training step against the number of visual tokens, beside the limit that its operations set.

    python tests/benchmarks/step_time.py                                   # two minutes of one core

A LLaVA with random weights, large enough to be bound by arithmetic: 576 patches, a language model of width 1024, LoRA
on its linear layers; compressor and projector train, the vision tower is frozen and runs. One step is forward, backward
and AdamW on the same images and questions at every budget. All budgets are timed in turn, round after round, and
compared within a round; it is the processor time of one thread that counts, which other work on the machine hardly
changes. The limit is `crop_model.cost.model`'s: the ratio of multiply-accumulates of the two steps. Prints a
Markdown table.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from wide_llava import FULL, configuration, questions

from crop_model.cost.model import ModelShape
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from train.backbones.base import LANGUAGE_MODEL_LINEARS

BUDGETS = (FULL, 192, 128, 64)
RANK = 16


def build(budget: int) -> PeftModel:
    """The model with `budget` visual tokens an image; all 576 of them means no compressor."""
    torch.manual_seed(0)
    config = configuration(budget, width=1024, ffn_width=2752, layers=4)
    model = CropLlavaForConditionalGeneration(config).requires_grad_(False)
    trained = ["multi_modal_projector"] if budget == FULL else ["compressor", "multi_modal_projector"]
    lora = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=LANGUAGE_MODEL_LINEARS, modules_to_save=trained)
    return get_peft_model(model, lora).train()


def batch(budget: int, samples: int, text_tokens: int) -> dict[str, torch.Tensor]:
    """Questions of which the second half of the text is the answer."""
    inputs = questions(budget, text_tokens, samples)
    labels = inputs["input_ids"].clone()
    labels[:, : budget + text_tokens // 2] = -100
    return {**inputs, "labels": labels}


def stepper(budget: int, samples: int, text_tokens: int) -> tuple[Callable[[], None], float]:
    """A function that trains one step, and the step's MACs by formula."""
    model, inputs = build(budget), batch(budget, samples, text_tokens)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    adapter = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    shape = ModelShape.from_config(model.get_base_model().config)

    def step() -> None:
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, samples * shape.training_step(text_tokens, adapter_parameters=adapter).total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--text-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = {budget: stepper(budget, arguments.samples, arguments.text_tokens) for budget in BUDGETS}
    for step, _ in cases.values():  # warm-up
        step()
    used: dict[int, list[float]] = {budget: [] for budget in cases}
    passed: dict[int, list[float]] = {budget: [] for budget in cases}
    for _ in range(arguments.rounds):
        for budget, (step, _) in cases.items():
            cpu, wall = time.process_time(), time.perf_counter()
            step()
            used[budget].append(time.process_time() - cpu)
            passed[budget].append(time.perf_counter() - wall)
    print(f"torch {torch.__version__}, one thread, float32, {arguments.samples} samples a step with ", end="")
    print(f"{arguments.text_tokens} text tokens each, medians of {arguments.rounds} rounds (least to most)\n")
    print("| visual tokens | processor s a step | wall s | GFLOP a step | GFLOP/s | speed-up | limit | of the limit |")
    print("|---|---|---|---|---|---|---|---|")
    for budget, (_, macs) in cases.items():
        ratios = [full / this for full, this in zip(used[FULL], used[budget], strict=True)]
        limit = cases[FULL][1] / macs
        speedup, seconds = statistics.median(ratios), statistics.median(used[budget])
        print(
            f"| {budget} | {seconds:.2f} ({min(used[budget]):.2f} to {max(used[budget]):.2f}) "
            f"| {statistics.median(passed[budget]):.2f} | {2 * macs / 1e9:.0f} | {2 * macs / 1e9 / seconds:.0f} "
            f"| {speedup:.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | {limit:.2f} | {speedup / limit:.0%} |"
        )


if __name__ == "__main__":
    main()
