"""Define what all compressors share: their sizes, their call, and the registry in which each type names itself.

    features    (B, N, D) ─►┐
                            ├─ compressor ─► tokens (B, T, D)
    region_mask (B, N)    ─►┘

A compressor type is one class under `@register_compressor`. One outside crop_model trains and evaluates as soon as its
file is imported, before a configuration is read. It is not exported: transformers copies the files that the modeling
file imports relatively (`from .x import y`), and no others; `travels` reports it. To export such a type, put its file
into crop_model, let it import by `from .compressor_base import ...`, and list the class in compressor.py.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from .hilbert import hilbert_order

COMPRESSORS: dict[str, type["Compressor"]] = {}  # by name; compressor.py lists this project's own
C = TypeVar("C", bound="Compressor")


@dataclass(frozen=True)
class CompressorConfig:
    """Hold what a compressor and its cost depend on. A ValueError starts with the configuration's key.

    Args:
        compressor_type: a name in `COMPRESSORS`.
        hidden_size: D, the width of the vision tower's features.
        patch_grid: rows and columns of the vision tower's patches; N = rows * columns.
        token_budget: T, visual tokens per image; 2 <= T <= N. A type that keeps every patch ignores it.
        region_ratio: retention inside the region over retention outside, above 1.
        num_attention_heads: heads of the compressor's attention; they divide D.
    """

    compressor_type: str
    hidden_size: int
    patch_grid: tuple[int, int]
    token_budget: int
    region_ratio: float = 16.0
    num_attention_heads: int = 8

    def __post_init__(self) -> None:
        if self.compressor_type not in COMPRESSORS:
            raise ValueError(f"compressor_type: {self.compressor_type!r} is none of {', '.join(COMPRESSORS)}")
        if not 2 <= self.num_tokens <= self.num_patches:
            raise ValueError(
                f"token_budget: {self.token_budget} is outside 2..{self.num_patches}, the patches of an image"
            )
        if not self.region_ratio > 1.0:
            raise ValueError(
                f"region_ratio: {self.region_ratio} is not above 1, the region would get no more than the rest"
            )
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads != 0:
            raise ValueError(
                f"compressor_num_attention_heads: {self.num_attention_heads} does not divide the vision tower's hidden "
                f"size {self.hidden_size}"
            )

    @classmethod
    def from_config(cls, config: Any) -> "CompressorConfig":
        """Read the compressor's keys of a model's configuration.

        A modeling file builds its compressor by its own copy of this class: with an export, transformers may pair the
        model's code from the export with the configuration's from an installed crop_model.
        """
        return cls(
            compressor_type=config.compressor_type,
            hidden_size=config.vision_feature_size,
            patch_grid=config.patch_grid,
            token_budget=config.token_budget,
            region_ratio=config.region_ratio,
            num_attention_heads=config.compressor_num_attention_heads,
        )

    @property
    def num_patches(self) -> int:
        """Return N, the number of patches per image."""
        return self.patch_grid[0] * self.patch_grid[1]

    @property
    def num_tokens(self) -> int:
        """Return T, the number of visual tokens per image after compression."""
        return COMPRESSORS[self.compressor_type].count_tokens(self)

    @property
    def reads_region(self) -> bool:
        """Report whether the tokens depend on the region."""
        return COMPRESSORS[self.compressor_type].reads_region

    @property
    def travels(self) -> bool:
        """Report whether the type's file is one of those beside this file, which an export carries."""
        return COMPRESSORS[self.compressor_type].__module__.rpartition(".")[0] == __name__.rpartition(".")[0]

    def macs(self) -> int:
        """Count the multiply-accumulates of one image's forward pass."""
        return COMPRESSORS[self.compressor_type].macs(self)

    def build(self) -> "Compressor":
        """Build the compressor, initialised."""
        return COMPRESSORS[self.compressor_type](self)


class Compressor(nn.Module):
    """Turn (B, N, D) features and a (B, N) region mask into (B, T, D) tokens.

    A subclass states its `name`, whether it `reads_region`, `compress`, `assign` and `macs`.
    """

    name: ClassVar[str]  # what `compressor_type` calls it
    reads_region: ClassVar[bool] = True  # False: the tokens are the same with any region
    curve: Tensor  # (N,) int64: patches in the order of the curve
    rank_on_curve: Tensor  # (N,) int64: its inverse

    def __init__(self, config: CompressorConfig):
        super().__init__()
        self.patch_grid = config.patch_grid
        self.num_tokens = config.num_tokens
        self.region_ratio = config.region_ratio
        self.register_buffer("curve", torch.empty(config.num_patches, dtype=torch.long), persistent=False)
        self.register_buffer("rank_on_curve", torch.empty(config.num_patches, dtype=torch.long), persistent=False)
        Compressor.reset_parameters(self)  # the tables alone: a subclass has no parameters yet

    @classmethod
    def count_tokens(cls, config: CompressorConfig) -> int:
        """Return T, by default the budget."""
        return config.token_budget

    @classmethod
    def macs(cls, config: CompressorConfig) -> int:
        """Count the multiply-accumulates of matrix products in one image's forward pass."""
        raise NotImplementedError

    def reset_parameters(self) -> None:
        """Initialise what the module owns: its parameters, if any, and the tables.

        The tables are in no checkpoint, and transformers builds a model without storage before it loads one: its
        `_init_weights` has to call this.
        """
        order = torch.tensor(hilbert_order(*self.patch_grid))
        self.curve.copy_(order)
        self.rank_on_curve.copy_(order.argsort())

    def forward(self, features: Tensor, region_mask: Tensor) -> Tensor:
        """Compress the features of B images. ValueError for shapes or dtypes other than these.

        Args:
            features: (B, N, D), of the vision tower, in raster order and without CLS.
            region_mask: bool (B, N), True inside the contextual region; all False or all True: no region is known.

        Returns:
            (B, T, D) tokens of the same dtype, in raster order.
        """
        if features.dim() != 3 or features.shape[1] != len(self.curve):
            raise ValueError(
                f"features of shape {tuple(features.shape)} do not fit (batch, {len(self.curve)}, width) of the patch "
                f"grid {self.patch_grid}"
            )
        if region_mask.shape != features.shape[:2] or region_mask.dtype != torch.bool:
            raise ValueError(
                f"region_mask of shape {tuple(region_mask.shape)} and {region_mask.dtype} is not a bool mask over "
                f"features of shape {tuple(features.shape)}"
            )
        return self.compress(features, region_mask)

    def compress(self, features: Tensor, region_mask: Tensor) -> Tensor:
        """Compute `forward` of inputs whose shapes are checked."""
        raise NotImplementedError

    def assign(self, region_mask: Tensor, features: Tensor) -> Tensor:
        """Return the number of the token that every patch goes into, -1 for a dropped patch: int64 (B, N)."""
        raise NotImplementedError


def register_compressor(compressor: type[C]) -> type[C]:
    """Make a class known under its `name`; usable as a decorator. ValueError if another class has that name."""
    known = COMPRESSORS.get(compressor.name)
    if known is not None and (known.__module__, known.__qualname__) != (compressor.__module__, compressor.__qualname__):
        raise ValueError(f"compressor_type: {compressor.name!r} is taken by {known.__module__}.{known.__qualname__}")
    COMPRESSORS[compressor.name] = compressor
    return compressor
