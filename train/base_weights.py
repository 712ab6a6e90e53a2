"""Whether an adapter stands on the weights that it was trained on.

An adapter's checkpoint names its base. Another base of the same shapes would load, and be wrong without a word; so some
numbers of the base's files are kept in the checkpoint. They are read from safetensors, whatever became of the weights
in memory: quantised, spread by ZeRO-3, of another type. They are compared as far as bf16 and fp16 keep them.
"""

import json
import math
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

FILE = "base_weights.json"  # {name of a tensor: {"shape": [...], "row": [numbers]}}
TENSORS, NUMBERS = 32, 16
PRECISION, SMALLEST = 2**-7, 1e-6  # bf16 rounds by up to 2**-9 of a number, twice at most; fp16 by up to 3e-8
FLOATS = ("F64", "F32", "F16", "BF16")


def sample(base: str) -> dict[str, Any]:
    """Some numbers of some matrices of a model that was loaded before; {} where it has no safetensors.

    Args:
        base: folder or Hub name, of a model or an adapter.
    """
    matrices = sorted(_matrices(base).items())
    return {name: _read(*place) for name, place in matrices[:: max(1, math.ceil(len(matrices) / TENSORS))]}


def check(name: str, base: str) -> None:
    """Compare the numbers in the adapter's folder `name`, where it has any, with those of `base`.

    Matrices that the base's files do not have under that name, in that shape and as floats, are passed over.

    Raises:
        ValueError: other weights.
    """
    path = Path(name) / FILE
    if not path.is_file():
        return
    matrices = _matrices(base)
    for tensor, stored in json.loads(path.read_text(encoding="utf-8")).items():
        if tensor not in matrices or (found := _read(*matrices[tensor]))["shape"] != stored["shape"]:
            continue
        pairs = zip(stored["row"], found["row"], strict=True)
        if not all(math.isclose(one, other, rel_tol=PRECISION, abs_tol=SMALLEST) for one, other in pairs):
            raise ValueError(f"its base {base} has other weights than it was trained on, {tensor} among them")


def _matrices(base: str) -> dict[str, tuple[Path, str]]:
    """File and name of every matrix of floats."""
    folder = Path(base)
    if not folder.is_dir():
        cached = [try_to_load_from_cache(base, name) for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)]
        folder = next((Path(path).parent for path in cached if isinstance(path, str)), folder)
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                part = file.get_slice(name)
                if part.get_dtype() in FLOATS and len(part.get_shape()) == 2:
                    found[name] = (path, name)
    return found


def _read(path: Path, name: str) -> dict[str, Any]:
    """Shape, and the first numbers of the row in the middle."""
    with safe_open(path, "pt") as file:
        part = file.get_slice(name)
        shape = part.get_shape()
        return {"shape": shape, "row": part[shape[0] // 2, :NUMBERS].double().tolist()}
