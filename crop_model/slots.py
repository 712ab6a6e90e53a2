"""Decide which patch goes into which token. A slot is a run of a curve through its group of patches.

    mask, 6x6            curve through each group, cut       slots in raster order of their centres
    . . . . . .          into t runs of n / t patches        0 0 0 1 1 1
    . # # . . .                                              0 2 3 1 1 1
    . # # . . .    ->    region: 4 patches, t = 4      ->    0 4 5 1 1 7
    . . . . . .          rest:  32 patches, t = 4            0 0 0 7 7 7      (about so)
    . . . . . .                                              6 6 6 7 7 7
    . . . . . .                                              6 6 6 6 6 7

Every patch is in one slot, every slot has a patch, no slot mixes the region with the rest. A region with no more
patches than tokens has one patch per slot: these are the **anchor tokens**. A slot is one connected piece of the image,
except where the region cuts the curve (about one slot in twenty outside a rectangle). This is this project's design.

All shapes depend on the number of patches N and of tokens T alone; nothing is read back from the device.
"""

import torch
from torch import Tensor

from .allocation import allocate
from .compressor_base import Compressor, CompressorConfig


class SlotPooling(Compressor):
    """Average each slot's patches: the region-ratio compressor without its queries (`no_queries`)."""

    name = "no_queries"

    @classmethod
    def macs(cls, config: CompressorConfig) -> int:
        return config.num_tokens * config.num_patches * config.hidden_size

    def compress(self, features: Tensor, region_mask: Tensor) -> Tensor:
        slot, _ = self.slots(self.known_region(region_mask))
        return pool(features, slot, self.num_tokens)

    def assign(self, region_mask: Tensor, features: Tensor) -> Tensor:
        return self.slots(self.known_region(region_mask))[0]

    def known_region(self, region_mask: Tensor) -> Tensor:
        """Empty a mask of the whole image, which says no more than no region."""
        return region_mask & ~region_mask.all(dim=-1, keepdim=True)

    def split_budget(self, n_in: Tensor, n_out: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens for the region and for the rest, (B,) each."""
        return allocate(n_in, n_out, self.num_tokens, self.region_ratio)

    def slots(self, region: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slot of every patch, and the patch's rank in its slot: int64 (B, N) each; no slot is empty."""
        region = region[:, self.curve]  # (B, N), in the order of the curve until the last step
        n_in = region.sum(dim=-1)  # (B,)
        slot, rank, _ = cut(region, *self.split_budget(n_in, region.shape[1] - n_in))
        return self._number_in_raster_order(slot[:, self.rank_on_curve]), rank[:, self.rank_on_curve]

    def centres(self, slot: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return row and column of every slot's centre, in patches, and its number of patches: float32 (B, T) each."""
        columns = self.patch_grid[1]
        patch = torch.arange(slot.shape[1], device=slot.device)
        size = self._sum_by_slot(torch.ones_like(patch), slot)
        row = self._sum_by_slot(patch // columns, slot)
        column = self._sum_by_slot(patch % columns, slot)
        return row / size, column / size, size.float()

    def _number_in_raster_order(self, slot: Tensor) -> Tensor:
        """Renumber slots by the row of their centres, rounded to a patch's, and then by the column."""
        row, column, _ = self.centres(slot)  # (B, T)
        key = (row + 0.5).floor() * self.patch_grid[1] + column
        number = key.argsort(dim=-1, stable=True).argsort(dim=-1)  # (B, T): old number -> new number
        return number.gather(1, slot)

    def _sum_by_slot(self, values: Tensor, slot: Tensor) -> Tensor:
        """Sum (N,) whole numbers over each slot: int64 (B, T)."""
        total = torch.zeros(slot.shape[0], self.num_tokens, dtype=torch.long, device=slot.device)
        return total.scatter_add(1, slot, values.expand_as(slot))


class UniformPooling(SlotPooling):
    """Average pooling without regard to the region (`uniform`): the region-ratio compressor's start without one."""

    name = "uniform"
    reads_region = False

    def known_region(self, region_mask: Tensor) -> Tensor:
        return torch.zeros_like(region_mask)


def membership(slot: Tensor, num_tokens: int) -> Tensor:
    """Mark which patch belongs to which slot: (B, N) -> bool (B, T, N)."""
    return slot[:, None, :] == torch.arange(num_tokens, device=slot.device)[:, None]


def pool(features: Tensor, slot: Tensor, num_tokens: int) -> Tensor:
    """Average every slot's patches: (B, N, D) and (B, N) -> (B, T, D).

    A slot of one patch returns it bit for bit, whatever the precision of matrix products. The mean of equal bfloat16
    patches is exact, that of equal float32 patches exact to rounding. Sums are products with the membership, because
    a scattered sum adds in random order on a GPU.
    """
    member = membership(slot, num_tokens)  # (B, T, N)
    size = member.sum(dim=-1, keepdim=True)  # (B, T, 1)
    with torch.autocast(features.device.type, enabled=False):
        mean = (member.float() @ features.float() / size).to(features.dtype)  # (B, T, D)
    patch = torch.arange(slot.shape[1], device=slot.device).expand_as(slot)
    some_patch = torch.zeros_like(slot[:, :num_tokens]).scatter(1, slot, patch)  # (B, T): the only one of a slot of one
    alone = features.gather(1, some_patch[..., None].expand(-1, -1, features.shape[-1]))
    return torch.where(size == 1, alone, mean)


def cut(region: Tensor, t_in: Tensor, t_out: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cut the region and the rest of a curve into even runs: of n patches into t, run = floor(rank * t / n).

    Args:
        region: bool (B, N), in the order of the curve.
        t_in, t_out: int64 (B,), the runs of the region and of the rest.

    Returns:
        run: int64 (B, N), the run of every patch, those of the region first; t_in for a rest without runs.
        rank, size: int64 (B, N), the patch's rank in its run, and the run's number of patches.
    """
    n_in = region.sum(dim=-1, keepdim=True)  # (B, 1)
    n = torch.where(region, n_in, region.shape[1] - n_in)  # (B, N): of the patch's own group, as t and rank
    t = torch.where(region, t_in[:, None], t_out[:, None])
    rank = torch.where(region, region.cumsum(dim=-1), (~region).cumsum(dim=-1)) - 1
    run = rank * t // n
    t = t.clamp(min=1)
    first, following = ((number * n + t - 1) // t for number in (run, run + 1))  # least rank with floor(...) = number
    return torch.where(region, run, run + t_in[:, None]), rank - first, following - first
