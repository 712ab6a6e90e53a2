"""Time of compressor and projector, forward and backward, against all tokens and against a TokenPacker-like one.

    python tests/benchmarks/compressor.py                                  # 8 images, float32, CPU
    python tests/benchmarks/compressor.py --device cuda --dtype bfloat16 --images 16

Sizes of LLaVA-1.5-7B: 576 patches of width 1024, tokens of width 4096. The vision tower is frozen, so no gradient for
the features is asked for. All variants are timed in turn, round after round, and compared within a round. On a CPU it
is the processor time of one thread that counts, which other work on the machine hardly changes. Prints a
Markdown table.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from crop_model.compressor import CompressorConfig

WIDTH, LLM_WIDTH, SIDE, TOKENS = 1024, 4096, 24, 64
ROUNDS = 9
ALL_TOKENS, RIVAL = "all 576 tokens, LLaVA projector", "TokenPacker-like, scale 3, four levels"


class RegionToPoint(nn.Module):
    """TokenPacker's region-to-point injection, after its outline (arXiv 2407.02392), in own code.

    A coarse point, interpolated from the features, attends to the scale x scale fine patches of its own region; keys
    and values come from several of the tower's levels. Only its cost matters here.
    """

    def __init__(self, levels: int, scale: int = 3):
        super().__init__()
        self.scale, self.heads = scale, WIDTH // 128
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key, self.value = (
            nn.Sequential(nn.Linear(levels * WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH)) for _ in range(2)
        )
        self.output = nn.Linear(WIDTH, WIDTH)

    def forward(self, features: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
        grid = features.unflatten(1, (SIDE, SIDE)).permute(0, 3, 1, 2)  # (B, D, 24, 24)
        points = (
            F.interpolate(grid, scale_factor=1 / self.scale, mode="bilinear").flatten(2).transpose(1, 2)
        )  # (B, T, D)
        query = self.query(points).unflatten(-1, (self.heads, 1, -1))  # (B, T, heads, 1, D / heads)
        key, value = (self._regions(layer(levels)) for layer in (self.key, self.value))
        found = F.scaled_dot_product_attention(query, key, value).flatten(2)  # (B, T, D)
        return points + self.output(found)

    def _regions(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, D) -> (B, T, heads, scale^2, D / heads)."""
        x = x.unflatten(1, (SIDE // self.scale, self.scale, SIDE // self.scale, self.scale))
        x = x.permute(0, 1, 3, 2, 4, 5).flatten(3, 4).flatten(1, 2)  # (B, T, scale^2, D)
        return x.unflatten(-1, (self.heads, -1)).transpose(2, 3)


def projector() -> nn.Module:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=WIDTH, num_attention_heads=16),
        text_config=LlamaConfig(hidden_size=LLM_WIDTH),
    )
    return LlavaMultiModalProjector(config)


def regions(images: int) -> torch.Tensor:
    """A rectangle each, from 16 patches (they fit the budget) to 144 (they do not): (B, N)."""
    mask = torch.zeros(images, SIDE, SIDE, dtype=torch.bool)
    for i in range(images):
        side = 4 + 8 * i // max(images - 1, 1)
        mask[i, i % 12 : i % 12 + side, 6 : 6 + side] = True
    return mask.flatten(1)


def variants(
    images: int, device: str, dtype: torch.dtype
) -> dict[str, tuple[list[nn.Module], Callable[[], torch.Tensor]]]:
    """Name -> (the modules that train, a forward pass)."""
    torch.manual_seed(0)
    features = torch.randn(images, SIDE * SIDE, WIDTH, device=device, dtype=dtype)
    mask = regions(images).to(device)
    project = projector().to(device, dtype)

    def compressor(compressor_type: str) -> nn.Module:
        return CompressorConfig(compressor_type, WIDTH, (SIDE, SIDE), TOKENS).build().to(device, dtype)

    one_level, four_levels = (RegionToPoint(levels).to(device, dtype) for levels in (1, 4))
    levels = torch.randn(images, SIDE * SIDE, 4 * WIDTH, device=device, dtype=dtype)
    region_ratio, no_queries = compressor("region_ratio"), compressor("no_queries")
    return {
        ALL_TOKENS: ([project], lambda: project(features)),
        RIVAL: ([four_levels, project], lambda: project(four_levels(features, levels))),
        "TokenPacker-like, scale 3, one level": ([one_level, project], lambda: project(one_level(features, features))),
        "`region_ratio`": ([region_ratio, project], lambda: project(region_ratio(features, mask))),
        "`no_queries` (pooling only)": ([no_queries, project], lambda: project(no_queries(features, mask))),
    }


def seconds(modules: list[nn.Module], forward: Callable[[], torch.Tensor], device: str) -> float:
    for module in modules:
        module.zero_grad()
    if device == "cpu":
        start = time.process_time()
        forward().float().square().mean().backward()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    forward().float().square().mean().backward()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--images", type=int, default=8)
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    cases = variants(arguments.images, arguments.device, getattr(torch, arguments.dtype))
    for modules, forward in cases.values():  # warm-up
        seconds(modules, forward, arguments.device)
    times: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, (modules, forward) in cases.items():
            times[name].append(seconds(modules, forward, arguments.device))

    def ratio(name: str, base: str) -> float:
        return statistics.median(a / b for a, b in zip(times[name], times[base], strict=True))

    device = "one CPU thread" if arguments.device == "cpu" else torch.cuda.get_device_name()
    print(f"torch {torch.__version__}, {device}, {arguments.dtype}, {arguments.images} images, ", end="")
    print(f"medians of {ROUNDS} rounds (least to most)\n")
    print("| | parameters | time, ms | to all tokens | to TokenPacker-like, four levels |\n|---|---|---|---|---|")
    for name, (modules, _) in cases.items():
        size = sum(parameter.numel() for module in modules for parameter in module.parameters()) / 1e6
        low, middle, high = (1e3 * f(times[name]) for f in (min, statistics.median, max))
        print(
            f"| {name} | {size:.1f} M | {middle:.0f} ({low:.0f} to {high:.0f}) | {ratio(name, ALL_TOKENS):.2f} "
            f"| {ratio(name, RIVAL):.2f} |"
        )


if __name__ == "__main__":
    main()
