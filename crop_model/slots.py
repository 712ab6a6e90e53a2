"""Slots: which patch goes into which token. A slot is a run of a curve through its group of patches.

    mask, 6x6            curve through each group, cut       slots in raster order of their centres
    . . . . . .          into t runs of n / t patches        0 0 0 1 1 1
    . # # . . .                                              0 2 3 1 1 1
    . # # . . .    ->    region: 4 patches, t = 4      ->    0 4 5 1 1 7
    . . . . . .          rest:  32 patches, t = 4            0 0 0 7 7 7      (about so)
    . . . . . .                                              6 6 6 7 7 7
    . . . . . .                                              6 6 6 6 6 7

Every patch is in one slot, every slot has a patch, no slot mixes the region with the rest. A region of no more patches
than its tokens has one patch a slot: these are the **anchor tokens**. A slot is one connected piece of the image but
where the region cuts the curve (about one slot of twenty outside a rectangle). This project's design.

All shapes depend on the number of patches N and of tokens T alone; nothing is read back from the device.
"""

import torch
from torch import nn

from .allocation import allocate
from .hilbert import hilbert_order


class Compressor(nn.Module):
    """What all compressors have in common: (B, N, D) features and a (B, N) region mask in, (B, T, D) tokens out.

    Args:
        patch_grid: rows and columns of the vision tower's patches; N = rows * columns.
        num_tokens: T, the number of tokens for each image.
    """

    curve: torch.Tensor  # (N,) int64: patches in the order of the curve
    place_on_curve: torch.Tensor  # (N,) int64: its inverse

    def __init__(self, patch_grid: tuple[int, int], num_tokens: int):
        super().__init__()
        self.patch_grid = patch_grid
        self.num_tokens = num_tokens
        num_patches = patch_grid[0] * patch_grid[1]
        self.register_buffer("curve", torch.empty(num_patches, dtype=torch.long), persistent=False)
        self.register_buffer("place_on_curve", torch.empty(num_patches, dtype=torch.long), persistent=False)
        self._fill_tables()

    def reset_parameters(self) -> None:
        """Initialises what the module owns: its parameters, if any, and the tables.

        The tables are in no checkpoint, and transformers builds a model without storage before it loads one: its
        `_init_weights` has to call this.
        """
        self._fill_tables()

    def forward(self, features: torch.Tensor, region_mask: torch.Tensor) -> torch.Tensor:
        """Compresses the features of B images.

        Args:
            features: (B, N, D), of the vision tower, in raster order and without CLS.
            region_mask: bool (B, N), True inside the contextual region; all False or all True: no region is known.

        Returns:
            (B, T, D) tokens of the same dtype, in raster order.
        """
        num_patches = self.patch_grid[0] * self.patch_grid[1]
        if features.dim() != 3 or features.shape[1] != num_patches:
            raise ValueError(
                f"features of shape {tuple(features.shape)} do not fit (batch, {num_patches}, width) of the patch grid "
                f"{self.patch_grid}"
            )
        if region_mask.shape != features.shape[:2] or region_mask.dtype != torch.bool:
            raise ValueError(
                f"region_mask of shape {tuple(region_mask.shape)} and {region_mask.dtype} is not a bool mask over "
                f"features of shape {tuple(features.shape)}"
            )
        return self.compress(features, region_mask)

    def compress(self, features: torch.Tensor, region_mask: torch.Tensor) -> torch.Tensor:
        """`forward` on inputs whose shapes are right."""
        raise NotImplementedError

    def assign(self, region_mask: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """The token, by its number in the output, that every patch goes into; -1 where it is dropped: int64 (B, N)."""
        raise NotImplementedError

    def _fill_tables(self) -> None:
        order = torch.tensor(hilbert_order(*self.patch_grid))
        self.curve.copy_(order)
        self.place_on_curve.copy_(order.argsort())


class SlotPooling(Compressor):
    """A token is the mean of its slot's patches: the region-ratio compressor without its queries (`no_queries`).

    Args:
        patch_grid: rows and columns of the vision tower's patches.
        token_budget: T, the number of tokens for each image.
        region_ratio: retention inside the region over retention outside.
    """

    def __init__(self, patch_grid: tuple[int, int], token_budget: int, region_ratio: float):
        super().__init__(patch_grid, token_budget)
        self.region_ratio = region_ratio

    def compress(self, features: torch.Tensor, region_mask: torch.Tensor) -> torch.Tensor:
        slot, _ = self.slots(self.known_region(region_mask))
        return pool(features, slot, self.num_tokens)

    def assign(self, region_mask: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return self.slots(self.known_region(region_mask))[0]

    def known_region(self, region_mask: torch.Tensor) -> torch.Tensor:
        """The mask, emptied where it is the whole image: that says no more than no region."""
        return region_mask & ~region_mask.all(dim=-1, keepdim=True)

    def split_budget(self, n_in: torch.Tensor, n_out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens for the region and for the rest, (B,) each."""
        return allocate(n_in, n_out, self.num_tokens, self.region_ratio)

    def slots(self, region: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The slot of every patch, and the patch's rank in its slot: int64 (B, N) each.

        Within a group of n patches and t tokens, slot = floor(rank * t / n): no slot is empty as t <= n.
        """
        region = region[:, self.curve]  # (B, N), in the order of the curve until the last step
        n_in = region.sum(dim=-1)  # (B,)
        n_out = region.shape[1] - n_in
        t_in, t_out = self.split_budget(n_in, n_out)
        slot_in, rank_in = _cut(region.cumsum(dim=-1) - 1, n_in[:, None], t_in[:, None])
        slot_out, rank_out = _cut((~region).cumsum(dim=-1) - 1, n_out[:, None], t_out[:, None])
        slot = torch.where(region, slot_in, slot_out + t_in[:, None])[:, self.place_on_curve]
        rank = torch.where(region, rank_in, rank_out)[:, self.place_on_curve]
        return self._number_in_raster_order(slot), rank

    def centres(self, slot: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Row and column of every slot's centre, in patches, and the number of its patches: float32 (B, T) each."""
        columns = self.patch_grid[1]
        patch = torch.arange(slot.shape[1], device=slot.device)
        size = self._sum_by_slot(torch.ones_like(patch), slot)
        row = self._sum_by_slot(patch // columns, slot)
        column = self._sum_by_slot(patch % columns, slot)
        return row / size, column / size, size.float()

    def _number_in_raster_order(self, slot: torch.Tensor) -> torch.Tensor:
        """Renumbers slots by the row of their centres, rounded to a patch's, and then by the column."""
        row, column, _ = self.centres(slot)  # (B, T)
        key = (row + 0.5).floor() * self.patch_grid[1] + column
        number = key.argsort(dim=-1, stable=True).argsort(dim=-1)  # (B, T): old number -> new number
        return number.gather(1, slot)

    def _sum_by_slot(self, values: torch.Tensor, slot: torch.Tensor) -> torch.Tensor:
        """(N,) whole numbers -> their sums over each slot, int64 (B, T)."""
        total = torch.zeros(slot.shape[0], self.num_tokens, dtype=torch.long, device=slot.device)
        return total.scatter_add(1, slot, values.expand_as(slot))


class UniformPooling(SlotPooling):
    """Average pooling that looks at no region (`uniform`): what the region-ratio compressor starts from without one."""

    def __init__(self, patch_grid: tuple[int, int], token_budget: int):
        super().__init__(patch_grid, token_budget, region_ratio=1.0)

    def known_region(self, region_mask: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(region_mask)


def membership(slot: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """Which patch belongs to which slot: (B, N) -> bool (B, T, N)."""
    return slot[:, None, :] == torch.arange(num_tokens, device=slot.device)[:, None]


def pool(features: torch.Tensor, slot: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """The mean of every slot's patches: (B, N, D) and (B, N) -> (B, T, D).

    A slot of one patch returns it bit for bit, whatever the precision of matrix products; the mean of equal
    bfloat16 patches is exact, of equal float32 patches exact to rounding. A product with the membership instead of
    a scattered sum: the latter adds in random order on a GPU.
    """
    member = membership(slot, num_tokens)  # (B, T, N)
    size = member.sum(dim=-1, keepdim=True)  # (B, T, 1)
    with torch.autocast(features.device.type, enabled=False):
        mean = (member.float() @ features.float() / size).to(features.dtype)  # (B, T, D)
    patch = torch.arange(slot.shape[1], device=slot.device).expand_as(slot)
    some_patch = torch.zeros_like(slot[:, :num_tokens]).scatter(1, slot, patch)  # (B, T): of a slot of one, the one
    alone = features.gather(1, some_patch[..., None].expand(-1, -1, features.shape[-1]))
    return torch.where(size == 1, alone, mean)


def _cut(rank: torch.Tensor, n: torch.Tensor, t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The run out of t that a rank out of n falls into, and the rank within it; without meaning outside the group."""
    n = n.clamp(min=1)
    run = rank * t // n
    first = (run * n + t - 1) // t.clamp(min=1)  # the least rank with floor(rank * t / n) = run
    return run, rank - first
