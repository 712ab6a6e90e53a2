"""Baselines behind the compressor's call that keep some patches as they are: all, random ones, or the region's."""

import torch

from .slots import Compressor


class KeepAll(Compressor):
    """No compression (`none`): every patch is a token."""

    def __init__(self, patch_grid: tuple[int, int]):
        super().__init__(patch_grid, num_tokens=patch_grid[0] * patch_grid[1])

    def compress(self, features: torch.Tensor, region_mask: torch.Tensor) -> torch.Tensor:
        return features

    def assign(self, region_mask: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return torch.arange(self.num_tokens, device=features.device).expand(features.shape[0], -1)


class PatchSelection(Compressor):
    """T patches are kept as they are, in raster order; the rest is dropped."""

    def select(self, region_mask: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """The patches kept, in ascending order, maybe repeated: int64 (B, T)."""
        raise NotImplementedError

    def compress(self, features: torch.Tensor, region_mask: torch.Tensor) -> torch.Tensor:
        kept = self.select(region_mask, features)  # (B, T)
        return features.gather(1, kept[..., None].expand(-1, -1, features.shape[-1]))

    def assign(self, region_mask: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        kept = self.select(region_mask, features)
        token = torch.arange(self.num_tokens, device=kept.device).expand_as(kept)
        dropped = torch.full_like(region_mask, self.num_tokens, dtype=torch.long)
        first = dropped.scatter_reduce(1, kept, token, "amin")  # a repeated patch: its first token
        return torch.where(first == self.num_tokens, -1, first)


class RandomPatches(PatchSelection):
    """Random patches (`random`): the same ones whenever the same image comes by, whatever else is in the batch.

    The seed of an image is drawn from its features: which patches stick out most along a few fixed directions. That is
    a choice among patches and no number, so that rounding does not change it.
    """

    def select(self, region_mask: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        patch = torch.arange(features.shape[1], device=features.device)  # (N,)
        seed = self._seed(features)  # (B,)
        draw = _scramble(seed[:, None] + _scramble(patch + 1))  # (B, N)
        return draw.argsort(dim=-1, stable=True)[:, : self.num_tokens].sort(dim=-1).values

    def _seed(self, features: torch.Tensor) -> torch.Tensor:
        channel = torch.arange(1, features.shape[-1] + 1, device=features.device, dtype=torch.float32)  # (D,)
        with torch.autocast(features.device.type, enabled=False):
            scores = [(features.float() @ torch.sin(channel * step)) for step in (1.0, 2.3, 4.1, 5.7)]
        seed = torch.zeros_like(scores[0][:, 0], dtype=torch.long)
        for score in scores:  # (B, N)
            seed = _scramble(seed + score.argmax(dim=-1) + 1)
        return seed


class RegionOnly(PatchSelection):
    """Nothing but the region (`region_only`): its patches evenly thinned or repeated to T; without one, the image's."""

    def select(self, region_mask: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        kept = region_mask | ~region_mask.any(dim=-1, keepdim=True)
        on_curve = kept[:, self.curve]  # thinned along the curve: even in both directions
        n = on_curve.sum(dim=-1, keepdim=True)  # (B, 1)
        region_first = (~on_curve).long().argsort(dim=-1, stable=True)  # (B, N) places on the curve
        token = torch.arange(self.num_tokens, device=n.device)
        middle = (2 * token + 1) * n // (2 * self.num_tokens)  # (B, T) ranks in the region
        return self.curve[region_first.gather(1, middle)].sort(dim=-1).values


def _scramble(number: torch.Tensor) -> torch.Tensor:
    """A hash of whole numbers to 32 bits, in int64 without overflow (multiply and shift, twice)."""
    for _ in range(2):
        number = number & 0xFFFFFFFF
        number = ((number >> 16) ^ number) * 0x45D9F3B
    number = number & 0xFFFFFFFF
    return (number >> 16) ^ number
