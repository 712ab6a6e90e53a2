"""Define baselines that keep some patches as they are: all of them, random ones, or the region's."""

import torch
from torch import Tensor

from .compressor_base import Compressor, CompressorConfig


class PatchSelection(Compressor):
    """Keep T patches as they are, in raster order, and drop the others."""

    @classmethod
    def macs(cls, config: CompressorConfig) -> int:
        return 0

    def select(self, region_mask: Tensor, features: Tensor) -> Tensor:
        """Return the numbers of the selected patches, ascending, possibly repeated: int64 (B, T)."""
        raise NotImplementedError

    def compress(self, features: Tensor, region_mask: Tensor) -> Tensor:
        selected = self.select(region_mask, features)  # (B, T)
        return features.gather(1, selected[..., None].expand(-1, -1, features.shape[-1]))

    def assign(self, region_mask: Tensor, features: Tensor) -> Tensor:
        selected = self.select(region_mask, features)
        token = torch.arange(self.num_tokens, device=selected.device).expand_as(selected)
        dropped = torch.full_like(region_mask, self.num_tokens, dtype=torch.long)
        first = dropped.scatter_reduce(1, selected, token, "amin")  # a repeated patch: its first token
        return torch.where(first == self.num_tokens, -1, first)


class KeepAll(PatchSelection):
    """Make every patch a token (`none`): no compression."""

    name = "none"
    reads_region = False

    @classmethod
    def count_tokens(cls, config: CompressorConfig) -> int:
        return config.num_patches

    def select(self, region_mask: Tensor, features: Tensor) -> Tensor:
        return torch.arange(self.num_tokens, device=features.device).expand(features.shape[0], -1)

    def compress(self, features: Tensor, region_mask: Tensor) -> Tensor:
        return features


class RandomPatches(PatchSelection):
    """Select random patches (`random`): the same ones for the same image, whatever else is in the batch.

    An image's seed follows from its features: which patches stand out most along a few fixed directions. These are
    choices among patches and not numbers, so that rounding does not change the seed.
    """

    name = "random"
    reads_region = False

    def select(self, region_mask: Tensor, features: Tensor) -> Tensor:
        patch = torch.arange(features.shape[1], device=features.device)  # (N,)
        seed = self._seed(features)  # (B,)
        draw = _scramble(seed[:, None] + _scramble(patch + 1))  # (B, N)
        return draw.argsort(dim=-1, stable=True)[:, : self.num_tokens].sort(dim=-1).values

    def _seed(self, features: Tensor) -> Tensor:
        channel = torch.arange(1, features.shape[-1] + 1, device=features.device, dtype=torch.float32)  # (D,)
        with torch.autocast(features.device.type, enabled=False):
            scores = [(features.float() @ torch.sin(channel * step)) for step in (1.0, 2.3, 4.1, 5.7)]
        seed = torch.zeros_like(scores[0][:, 0], dtype=torch.long)
        for score in scores:  # (B, N)
            seed = _scramble(seed + score.argmax(dim=-1) + 1)
        return seed


class RegionOnly(PatchSelection):
    """Select the region alone (`region_only`), thinned evenly or repeated to T patches; without one, from all."""

    name = "region_only"

    def select(self, region_mask: Tensor, features: Tensor) -> Tensor:
        selected = region_mask | ~region_mask.any(dim=-1, keepdim=True)
        on_curve = selected[:, self.curve]  # thinned along the curve: even in both directions
        n = on_curve.sum(dim=-1, keepdim=True)  # (B, 1)
        region_first = (~on_curve).long().argsort(dim=-1, stable=True)  # (B, N) ranks on the curve
        token = torch.arange(self.num_tokens, device=n.device)
        middle = (2 * token + 1) * n // (2 * self.num_tokens)  # (B, T) ranks in the region
        return self.curve[region_first.gather(1, middle)].sort(dim=-1).values


def _scramble(number: Tensor) -> Tensor:
    """Hash whole numbers to 32 bits, in int64 without overflow: multiply and shift, twice."""
    for _ in range(2):
        number = number & 0xFFFFFFFF
        number = ((number >> 16) ^ number) * 0x45D9F3B
    number = number & 0xFFFFFFFF
    return (number >> 16) ^ number
