"""The training-free methods by name.

method      acts              keys                                                      region
ilp         inside the LLM    layer, rest, pruned_tokens, convention; any compressor    read
fastv       inside the LLM    layer, pruned_tokens, convention; any compressor          not read
visionzip   before the LLM    token_budget; replaces a compressor                       not read
divprune    before the LLM    token_budget; replaces a compressor                       not read

A method of another package is added by `METHODS[MyMethod.name] = MyMethod`, before a configuration is read.
"""

from typing import Any

from .base import TrainingFreeMethod
from .divprune import DivPrune
from .ilp import ILP, FastV
from .visionzip import VisionZip

METHODS: dict[str, type[TrainingFreeMethod]] = {method.name: method for method in (ILP, FastV, VisionZip, DivPrune)}


def training_free_method(name: str | None, **keys: Any) -> TrainingFreeMethod:
    """Build the method of a row.

    Args:
        name: of the method; None: the model as it is.
        keys: the row's, of all methods. The named method takes its own, and those of others are checked alike, so that
            a table can hold methods beside each other.

    Raises:
        ValueError: an unknown name, a value out of its range, or a key that must be given with the method alone.
    """
    if name is not None and name not in METHODS:
        raise ValueError(f"method: {name!r} is none of {', '.join(METHODS)}")
    for key, value in keys.items():
        readers = {known: method for known, method in METHODS.items() if key in method.row_keys()}
        required = [known for known, method in readers.items() if method.row_keys()[key]]
        if required and (value is not None) != (name in required):
            raise ValueError(f"{key}: it goes with method {' or '.join(required)}, and they with it")
        if value is not None or not required:
            for method in readers.values():
                method.check_key(key, value)
    method = TrainingFreeMethod if name is None else METHODS[name]
    return method(**{key: value for key, value in keys.items() if key in method.row_keys()})
