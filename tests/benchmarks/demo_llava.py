"""What the training benchmarks share: the demo's LLaVA with a wider language model, and the words of a run on it.

The demo's own model is so small that its vision tower is most of a step, which no compression of visual tokens can
save; here, as in LLaVA-1.5, the language model is. The weights are random.
"""

import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, TrainerCallback

from data_prep.common.command_line import parse_config
from train.arguments.data import DataArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.engine.run import build_trainer
from train.engine.trainer import PlcTrainer

DEMO_BASE = Path(__file__).parents[2] / "configs" / "demo_base"
WIDTH, LAYERS = 512, 3


def write_model(folder: Path) -> None:
    """A folder in llava-hf format: 256 visual tokens an image, a language model of width 512."""
    config = LlavaConfig.from_pretrained(DEMO_BASE)
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = WIDTH, 1376, LAYERS
    text.head_dim, text.num_attention_heads, text.num_key_value_heads = 64, WIDTH // 64, WIDTH // 64
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor.from_pretrained(DEMO_BASE).save_pretrained(folder)


def build(model: Path, train_data: str, run: Path, steps: int, *words: str) -> PlcTrainer:
    """A trainer in fp32, with LoRA of rank 16 on the language model's linear layers, that logs every step."""
    common = [
        f"model={model}",
        f"train_data={train_data}",
        f"output_dir={run}",
        f"max_steps={steps}",
        "lora={r: 16, lora_alpha: 32}",
        "compressor_num_attention_heads=4",
        "logging_steps=1",
        "save_strategy=no",
        "report_to=none",
        "use_cpu=true",
        "disable_tqdm=true",
    ]
    kinds = (ModelArguments, DataArguments, PlcTrainingArguments)
    return build_trainer(*parse_config(kinds, [*common, *words], prog="benchmark", description=""))


class Clock(TrainerCallback):
    """Wall and processor time at the end of every step."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.wall.append(time.perf_counter())
        self.processor.append(time.process_time())

    def seconds(self) -> tuple[float, float]:
        """Wall and processor seconds from the end of the first step, which warms up, to the end of the last."""
        return self.wall[-1] - self.wall[0], self.processor[-1] - self.processor[0]
