"""FastV: prune by attention inside the LLM, whatever the region.

Chen et al., "An Image is Worth 1/2 Tokens After Layer 2", ECCV 2024, arXiv 2403.06764: from layer K on, those visual
tokens stay to which the last token of the prompt pays most attention in layer K - 1.
"""

from dataclasses import dataclass

from .inside_llm import Rest
from .pruning_method import PruningMethod


@dataclass(frozen=True)
class FastV(PruningMethod):
    """Keep the tokens of the highest attention."""

    name = "fastv"
    reads_region = False

    def _own_label(self) -> str:
        return "fastv"

    def _rest(self) -> Rest:
        return "attention"
