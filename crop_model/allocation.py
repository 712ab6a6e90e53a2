"""Split the token budget between the region and the rest of the image. This project's design.

With n_in patches inside the region, n_out outside, a budget of T tokens and a region ratio rho > 1, retention inside
shall be rho times retention outside, which determines both:

    t_in / n_in = rho * t_out / n_out,   t_in + t_out = T    =>    t_in = T * rho * n_in / (rho * n_in + n_out)

rounded, and limited to what the two groups can take. 24x24 patches, T = 64, rho = 16:

    region      27 patches   36   144   576 (or 0: no region)
    t_in        27 (all)     33    54    64
    t_out       37           31    10     0
"""

import torch
from torch import Tensor


def allocate(n_in: Tensor, n_out: Tensor, token_budget: int, region_ratio: float) -> tuple[Tensor, Tensor]:
    """Split the token budget between the region and the rest, for each sample of a batch.

    Always t_in + t_out = token_budget, t_in <= n_in and t_out <= n_out, and each group that exists has a token.
    Retention inside is at least retention outside, unless so few patches are outside that their one token is more than
    their share (n_out * (token_budget - 1) < n_in).

    Args:
        n_in, n_out: patches inside and outside the region, int64 (B,), on any device; token_budget <= n_in + n_out.
        region_ratio: retention inside over retention outside, > 1.

    Returns:
        t_in, t_out: tokens for the region and for the rest, int64 (B,), on the same device, without a host
        synchronisation.
    """
    weight = region_ratio * n_in.float()
    share = token_budget * weight / (weight + n_out.float())
    n = n_in + n_out
    even = (token_budget * n_in + n - 1) // n  # rounding down must not push the region below an even split
    t_in = torch.maximum(share.round().long(), even)
    return _within_limits(t_in, n_in, n_out, token_budget)


def allocate_without_anchors(
    n_in: Tensor, n_out: Tensor, token_budget: int, region_ratio: float
) -> tuple[Tensor, Tensor]:
    """Split like `allocate`, but with at most one token per two patches of the region: none stays as it is.

    The rest of the budget goes outside, as far as there are patches outside.
    """
    t_in, _ = allocate(n_in, n_out, token_budget, region_ratio)
    return _within_limits(torch.minimum(t_in, n_in // 2), n_in, n_out, token_budget)


def _within_limits(t_in: Tensor, n_in: Tensor, n_out: Tensor, token_budget: int) -> tuple[Tensor, Tensor]:
    """Limit t_in to [max(1, T - n_out), min(n_in, T - 1)] if both groups exist, else to 0 or T; t_out = T - t_in."""
    t_in = t_in.clamp(1, token_budget - 1)
    t_in = torch.minimum(torch.maximum(t_in, token_budget - n_out), n_in)
    return t_in, token_budget - t_in
