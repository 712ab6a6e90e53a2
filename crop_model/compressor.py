"""Define the region-ratio compressor, PLC, and the list of all types: from N patch features to T tokens.

The CROP paper's idea is to compress the contextual region of a question less than the rest, before the LLM, by
learnable queries, with anchor tokens that keep the region's detail and a residual connection. The paper's body was not
at hand; everything below is this project's design on the idea:

    token = mean of the slot's patches  +  W_o Attention(the slot's query; the slot's own patches)
            ^^^^^^^^^^^^^^^^^^^^^^^^^^     ^^^
            residual: an anchor token     zero at first: untrained, the compressor keeps a region that fits its share
            is its patch                  as it is and pools everything else

allocation.py decides how many tokens each group gets, slots.py which patches make a token.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .allocation import allocate_without_anchors
from .baselines import KeepAll, RandomPatches, RegionOnly
from .compressor_base import COMPRESSORS, CompressorConfig, register_compressor
from .slots import SlotPooling, UniformPooling, membership, pool

_LARGEST_HEAD_SIZE = 32
_RANKS = 64  # ranks in a slot with an embedding of their own; later ones share the last


class SlotAttention(nn.Module):
    """Let one query per slot attend to the slot's own patches.

    The query is a learned one (one for the region, one for the rest) plus the slot's content and position. A key
    carries the patch's rank in the slot, so that heads can distinguish patches. Content and patches are normalised on
    their way to queries and keys, because towers differ in the scale of their features.

    Heads are at most 32 wide, so that the work on the N patches is 2 N D * (32 * heads) and not 2 N D^2: they add to a
    mean that has the full width already. `macs` has the formula.

    Args:
        hidden_size: D, which `num_heads` divides.
        zero_output: W_o starts at zero.
    """

    def __init__(self, hidden_size: int, num_heads: int, zero_output: bool):
        super().__init__()
        self.num_heads = num_heads
        self.width = self.total_width(hidden_size, num_heads)
        self.zero_output = zero_output
        self.group_query = nn.Parameter(torch.empty(2, self.width))  # outside, inside
        self.content_query = nn.Linear(hidden_size, self.width, bias=False)
        self.place_query = nn.Linear(3, self.width, bias=False)
        self.key = nn.Linear(hidden_size, self.width, bias=False)
        self.rank_key = nn.Embedding(_RANKS, self.width)
        self.value = nn.Linear(hidden_size, self.width, bias=False)
        self.output = nn.Linear(self.width, hidden_size, bias=False)
        self.reset_parameters()

    @staticmethod
    def total_width(hidden_size: int, num_heads: int) -> int:
        """Return W, the width of all heads together."""
        return num_heads * min(hidden_size // num_heads, _LARGEST_HEAD_SIZE)

    @classmethod
    def macs(cls, config: CompressorConfig) -> int:
        """Count the multiply-accumulates of one image's forward pass."""
        n, t, d, h = config.num_patches, config.num_tokens, config.hidden_size, config.num_attention_heads
        width = cls.total_width(d, h)
        queries = t * (d + 3) * width
        keys_and_values = 2 * n * d * width
        queries_to_patches = n * t * width
        softmax = 2 * n * t * h
        averages = t * n * width
        output = t * width * d
        return queries + keys_and_values + queries_to_patches + softmax + averages + output

    def reset_parameters(self) -> None:
        for weight in (self.group_query, self.place_query.weight, self.rank_key.weight):
            nn.init.normal_(weight, std=0.02)
        for layer in (self.content_query, self.key, self.value, self.output):
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        if self.zero_output:
            nn.init.zeros_(self.output.weight)

    def forward(
        self, features: Tensor, *, content: Tensor, position: Tensor, in_region: Tensor, slot: Tensor, rank: Tensor
    ) -> Tensor:
        """Return what each slot's query gathers from its patches: (B, T, D).

        Args:
            features: (B, N, D) patches.
            content: (B, T, D), the mean of each slot.
            position: (B, T, 3), see `RegionRatioCompressor`.
            in_region: bool (B, T), whether a slot is of the region.
            slot, rank: int64 (B, N), the slot of a patch and its rank there.
        """
        member = membership(slot, content.shape[1]).to(features.dtype)  # (B, T, N)
        query = F.layer_norm(self.content_query(content), (self.width,)) + self.place_query(position)
        query = query + F.embedding(in_region.long(), self.group_query)  # (B, T, W)
        key = F.layer_norm(self.key(features), (self.width,)) + self.rank_key(rank.clamp(max=_RANKS - 1))  # (B, N, W)
        own_query = member.mT @ query  # (B, N, W): only its own slot queries a patch
        scores = (own_query * key).unflatten(-1, (self.num_heads, -1)).sum(dim=-1)  # (B, N, H)
        scores = scores * (self.width // self.num_heads) ** -0.5
        weights = slot_softmax(scores, slot, member).to(features.dtype)  # (B, N, H)
        values = self.value(features).unflatten(-1, (self.num_heads, -1)) * weights[..., None]  # (B, N, H, W / H)
        return self.output(member @ values.flatten(2))


def slot_softmax(scores: Tensor, slot: Tensor, member: Tensor) -> Tensor:
    """Apply softmax to (B, N, H) scores over the patches of each slot, in float32.

    Sums are products with the (B, T, N) membership, which are deterministic, unlike a scattered sum on a GPU.
    """
    with torch.autocast(scores.device.type, enabled=False):
        scores, member = scores.float(), member.float()
        index = slot[..., None].expand_as(scores)
        lowest = scores.new_full((scores.shape[0], member.shape[1], scores.shape[2]), float("-inf"))
        largest = lowest.scatter_reduce(1, index, scores.detach(), "amax").gather(1, index)  # (B, N, H)
        exponential = (scores - largest).exp()
        return exponential / (member.mT @ (member @ exponential))


class RegionRatioCompressor(SlotPooling):
    """Compute PLC's tokens (`region_ratio`): the mean of each slot's patches, plus what the slot's query adds to it."""

    name = "region_ratio"
    has_residual = True

    def __init__(self, config: CompressorConfig):
        super().__init__(config)
        self.attention = SlotAttention(config.hidden_size, config.num_attention_heads, zero_output=self.has_residual)

    @classmethod
    def macs(cls, config: CompressorConfig) -> int:
        return super().macs(config) + SlotAttention.macs(config)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.attention.reset_parameters()

    def compress(self, features: Tensor, region_mask: Tensor) -> Tensor:
        region = self.known_region(region_mask)  # (B, N)
        slot, rank = self.slots(region)
        mean = pool(features, slot, self.num_tokens)  # (B, T, D)
        in_region = torch.zeros_like(region[:, : self.num_tokens]).scatter(1, slot, region)  # (B, T)
        position = self._position(slot).to(mean.dtype)
        attended = self.attention(features, content=mean, position=position, in_region=in_region, slot=slot, rank=rank)
        attended = attended.to(mean.dtype)  # under autocast, products come in a lower precision
        return mean + attended if self.has_residual else attended

    def _position(self, slot: Tensor) -> Tensor:
        """Return row and column of the slot's centre in [-1, 1], and one over its number of patches: (B, T, 3)."""
        rows, columns = self.patch_grid
        row, column, size = self.centres(slot)
        return torch.stack([(2 * row + 1) / rows - 1, (2 * column + 1) / columns - 1, 1 / size], dim=-1)


class NoAnchors(RegionRatioCompressor):
    """Put at least two patches of the region into every token of it, so that none stays as it is (`no_anchors`)."""

    name = "no_anchors"

    def split_budget(self, n_in: Tensor, n_out: Tensor) -> tuple[Tensor, Tensor]:
        return allocate_without_anchors(n_in, n_out, self.num_tokens, self.region_ratio)


class NoResidual(RegionRatioCompressor):
    """Make a token of what its query gathers alone, and so do not start W_o at zero (`no_residual`)."""

    name = "no_residual"
    has_residual = False


for _compressor in (
    KeepAll,
    RegionRatioCompressor,
    UniformPooling,
    RandomPatches,
    RegionOnly,
    NoAnchors,
    SlotPooling,
    NoResidual,
):
    register_compressor(_compressor)

COMPRESSOR_TYPES = COMPRESSORS.keys()  # a live view: types that are registered later are in it
