"""ILP: prune most visual tokens outside the region inside the LLM. CROP's second stage, without training."""

from dataclasses import dataclass
from typing import Any, get_args

from .inside_llm import Rest
from .pruning_method import PruningMethod


@dataclass(frozen=True)
class ILP(PruningMethod):
    """Keep the region, and of the rest what `rest` says, see `PruningConfig`."""

    rest: Rest = "thinned"

    name = "ilp"

    @classmethod
    def check_key(cls, key: str, value: Any) -> None:
        super().check_key(key, value)
        if key == "rest" and value not in get_args(Rest):
            raise ValueError(f"rest: {value!r} is none of {', '.join(get_args(Rest))}")

    def _own_label(self) -> str:
        return f"ilp_{self.rest}"

    def _rest(self) -> Rest:
        return self.rest
