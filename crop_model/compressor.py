"""The region-ratio compressor, PLC: N patch features and a region mask in, exactly T visual tokens out.

That the contextual region of a question is compressed less than the rest, before the LLM, by learnable queries, with
anchor tokens that keep the region's detail and a residual connection, is the CROP paper's; the paper's body was not
at hand, and everything below is this project's design on the idea:

    token = mean of the slot's patches  +  W_o Attention(the slot's query; the slot's own patches)
            ^^^^^^^^^^^^^^^^^^^^^^^^^^     ^^^
            residual: an anchor token     zero at first: untrained, the compressor keeps a region that fits its share
            is its patch                  as it is and pools everything else

allocation.py says how many tokens each group gets, slots.py which patches make a token.
"""

import torch
import torch.nn.functional as F
from torch import nn

from .allocation import allocate_without_anchors
from .baselines import KeepAll, RandomPatches, RegionOnly
from .slots import Compressor, SlotPooling, UniformPooling, membership, pool

COMPRESSOR_TYPES = (
    "none",
    "region_ratio",
    "uniform",
    "random",
    "region_only",
    "no_anchors",
    "no_queries",
    "no_residual",
)
LARGEST_HEAD_SIZE = 32
_RANKS = 64  # ranks in a slot with an embedding of their own; later ones share the last


class SlotAttention(nn.Module):
    """One query for each slot attends to the slot's own patches.

    The query is a learned one (one for the region, one for the rest) plus the slot's content and place; a key carries
    the patch's rank in the slot, so that heads can tell patches apart. Content and patches are normalised on their
    way to queries and keys: towers differ in the scale of their features.

    Heads are at most 32 wide, so that the work on the N patches is 2 N D * (32 * heads) and not 2 N D^2: they add to a
    mean that has the full width already. cost.py has the formula.

    Args:
        hidden_size: D.
        num_heads: divides D.
        zero_output: W_o starts at zero.
    """

    def __init__(self, hidden_size: int, num_heads: int, zero_output: bool):
        super().__init__()
        self.num_heads = num_heads
        self.width = num_heads * min(hidden_size // num_heads, LARGEST_HEAD_SIZE)  # W, of all heads together
        self.zero_output = zero_output
        self.group_query = nn.Parameter(torch.empty(2, self.width))  # outside, inside
        self.content_query = nn.Linear(hidden_size, self.width, bias=False)
        self.place_query = nn.Linear(3, self.width, bias=False)
        self.key = nn.Linear(hidden_size, self.width, bias=False)
        self.rank_key = nn.Embedding(_RANKS, self.width)
        self.value = nn.Linear(hidden_size, self.width, bias=False)
        self.output = nn.Linear(self.width, hidden_size, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for weight in (self.group_query, self.place_query.weight, self.rank_key.weight):
            nn.init.normal_(weight, std=0.02)
        for layer in (self.content_query, self.key, self.value, self.output):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        if self.zero_output:
            nn.init.zeros_(self.output.weight)

    def forward(
        self,
        features: torch.Tensor,
        *,
        content: torch.Tensor,
        place: torch.Tensor,
        in_region: torch.Tensor,
        slot: torch.Tensor,
        rank: torch.Tensor,
    ) -> torch.Tensor:
        """What the slots' queries find: (B, T, D).

        Args:
            features: (B, N, D) patches;  slot, rank: int64 (B, N), the slot of a patch and its rank there.
            content: (B, T, D) mean of each slot;  place: (B, T, 3);  in_region: bool (B, T).
        """
        member = membership(slot, content.shape[1]).to(features.dtype)  # (B, T, N)
        query = F.layer_norm(self.content_query(content), (self.width,)) + self.place_query(place)
        query = query + F.embedding(in_region.long(), self.group_query)  # (B, T, W)
        key = F.layer_norm(self.key(features), (self.width,)) + self.rank_key(rank.clamp(max=_RANKS - 1))  # (B, N, W)
        own_query = member.mT @ query  # (B, N, W): a patch is asked by its own slot alone
        scores = (own_query * key).unflatten(-1, (self.num_heads, -1)).sum(dim=-1)  # (B, N, H)
        scores = scores * (self.width // self.num_heads) ** -0.5
        weights = slot_softmax(scores, slot, member).to(features.dtype)  # (B, N, H)
        values = self.value(features).unflatten(-1, (self.num_heads, -1)) * weights[..., None]  # (B, N, H, W / H)
        return self.output(member @ values.flatten(2))


def slot_softmax(scores: torch.Tensor, slot: torch.Tensor, member: torch.Tensor) -> torch.Tensor:
    """Softmax of (B, N, H) scores over the patches of each slot, in float32.

    Sums are products with the (B, T, N) membership: deterministic, unlike a scattered sum on a GPU.
    """
    with torch.autocast(scores.device.type, enabled=False):
        scores, member = scores.float(), member.float()
        index = slot[..., None].expand_as(scores)
        lowest = scores.new_full((scores.shape[0], member.shape[1], scores.shape[2]), float("-inf"))
        largest = lowest.scatter_reduce(1, index, scores.detach(), "amax").gather(1, index)  # (B, N, H)
        exponential = (scores - largest).exp()
        return exponential / (member.mT @ (member @ exponential))


class RegionRatioCompressor(SlotPooling):
    """PLC (`region_ratio`).

    Args:
        hidden_size: D, the width of the vision tower's features.
        patch_grid: rows and columns of its patches; N = rows * columns.
        token_budget: T, the number of tokens for each image.
        region_ratio: retention inside the region over retention outside, > 1.
        num_attention_heads: heads of the slot attention; they divide D.
    """

    has_residual = True

    def __init__(
        self,
        hidden_size: int,
        patch_grid: tuple[int, int],
        token_budget: int,
        region_ratio: float = 16.0,
        num_attention_heads: int = 8,
    ):
        super().__init__(patch_grid, token_budget, region_ratio)
        self.attention = SlotAttention(hidden_size, num_attention_heads, zero_output=self.has_residual)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.attention.reset_parameters()

    def compress(self, features: torch.Tensor, region_mask: torch.Tensor) -> torch.Tensor:
        region = self.known_region(region_mask)  # (B, N)
        slot, rank = self.slots(region)
        mean = pool(features, slot, self.num_tokens)  # (B, T, D)
        in_region = torch.zeros_like(region[:, : self.num_tokens]).scatter(1, slot, region)  # (B, T)
        place = self._place(slot).to(mean.dtype)
        attended = self.attention(features, content=mean, place=place, in_region=in_region, slot=slot, rank=rank)
        attended = attended.to(mean.dtype)  # under autocast, products come in a lower precision
        return mean + attended if self.has_residual else attended

    def _place(self, slot: torch.Tensor) -> torch.Tensor:
        """Row and column of the slot's centre in [-1, 1], and one over the number of its patches: (B, T, 3)."""
        rows, columns = self.patch_grid
        row, column, size = self.centres(slot)
        return torch.stack([(2 * row + 1) / rows - 1, (2 * column + 1) / columns - 1, 1 / size], dim=-1)


class NoAnchors(RegionRatioCompressor):
    """Ablation `no_anchors`: no patch of the region stays as it is; at least two go into every token of it."""

    def split_budget(self, n_in: torch.Tensor, n_out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return allocate_without_anchors(n_in, n_out, self.num_tokens, self.region_ratio)


class NoResidual(RegionRatioCompressor):
    """Ablation `no_residual`: a token is what attention finds, and so W_o does not start at zero."""

    has_residual = False


def build_compressor(
    compressor_type: str,
    *,
    hidden_size: int,
    patch_grid: tuple[int, int],
    token_budget: int,
    region_ratio: float,
    num_attention_heads: int,
) -> Compressor:
    """The compressor of that type.

    Raises:
        ValueError: an unknown type, or a value that does not fit; the message names the key.
    """
    _check(
        compressor_type,
        hidden_size=hidden_size,
        patch_grid=patch_grid,
        token_budget=token_budget,
        region_ratio=region_ratio,
        num_attention_heads=num_attention_heads,
    )
    if compressor_type == "none":
        return KeepAll(patch_grid)
    if compressor_type == "random":
        return RandomPatches(patch_grid, token_budget)
    if compressor_type == "region_only":
        return RegionOnly(patch_grid, token_budget)
    if compressor_type == "uniform":
        return UniformPooling(patch_grid, token_budget)
    if compressor_type == "no_queries":
        return SlotPooling(patch_grid, token_budget, region_ratio)
    learned = {"region_ratio": RegionRatioCompressor, "no_anchors": NoAnchors, "no_residual": NoResidual}
    return learned[compressor_type](hidden_size, patch_grid, token_budget, region_ratio, num_attention_heads)


def _check(
    compressor_type: str,
    *,
    hidden_size: int,
    patch_grid: tuple[int, int],
    token_budget: int,
    region_ratio: float,
    num_attention_heads: int,
) -> None:
    if compressor_type not in COMPRESSOR_TYPES:
        raise ValueError(f"compressor_type: {compressor_type!r} is not one of {', '.join(COMPRESSOR_TYPES)}")
    num_patches = patch_grid[0] * patch_grid[1]
    if compressor_type != "none" and not 2 <= token_budget <= num_patches:
        raise ValueError(
            f"token_budget: {token_budget} is not between 2 and the {num_patches} patches of a "
            f"{patch_grid[0]}x{patch_grid[1]} grid"
        )
    if not region_ratio > 1.0:
        raise ValueError(f"region_ratio: {region_ratio} is not above 1, the region would get no more than the rest")
    if num_attention_heads < 1 or hidden_size % num_attention_heads != 0:
        raise ValueError(
            f"compressor_num_attention_heads: {num_attention_heads} does not divide the vision tower's hidden size "
            f"{hidden_size}"
        )
