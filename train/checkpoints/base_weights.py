"""Check that an adapter is loaded onto the base weights that it was trained on.

An adapter's checkpoint names its base. Another base of the same shapes would load and silently give wrong results, so
the checkpoint holds some numbers of the base's files. They are read from safetensors, because weights in memory may be
quantised, spread by ZeRO-3 or of another dtype. They are compared to the precision that bf16 and fp16 preserve.
"""

import json
import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from pydantic import TypeAdapter, ValidationError
from safetensors import safe_open
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME

logger = logging.getLogger(__name__)

FILE = "base_weights.json"  # {name of a tensor: {"shape": [...], "row": [numbers]}}
TENSORS, NUMBERS = 32, 16
PRECISION, SMALLEST = 2**-7, 1e-6  # bf16 rounds by up to 2**-9 of a number, twice at most; fp16 by up to 3e-8
FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True)
class Numbers:
    """Hold a sample of one matrix's numbers."""

    shape: list[int]
    row: list[float]  # the first `NUMBERS` of the row in the middle


STORED = TypeAdapter(dict[str, Numbers])


def sample(base: str) -> dict[str, Numbers]:
    """Sample numbers from some matrices of a model that was loaded before; {} if it has no safetensors.

    Args:
        base: folder or Hub name, of a model or an adapter.
    """
    matrices = _matrices(base)
    return {name: _read(*matrices[name]) for name in spread(matrices)}


def write(folder: Path, numbers: Mapping[str, Numbers]) -> None:
    """Write the numbers, if there are any, into a checkpoint's folder."""
    if numbers:
        text = json.dumps({name: asdict(one) for name, one in numbers.items()})
        (folder / FILE).write_text(text, encoding="utf-8")


def spread(names: Iterable[str]) -> list[str]:
    """Choose at most `TENSORS` names, of every kind of matrix and from layers all over the model."""
    by_kind = sorted(names, key=lambda name: (re.sub(r"\d+", "", name), name))
    count = min(len(by_kind), TENSORS)
    return [by_kind[number * len(by_kind) // count] for number in range(count)]


def check(name: str, base: str) -> None:
    """Compare the numbers in the adapter's folder `name`, if it has any, with those of `base`.

    Matrices that the base's files do not hold under that name, in that shape and as floats, are skipped; if none
    remains, a warning is logged.

    Raises:
        ValueError: other weights, or a damaged file of numbers.
    """
    path = Path(name) / FILE
    if not path.is_file():
        return
    try:
        expected = STORED.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path}: damaged: {error.errors()[0]['msg']}") from error
    matrices, compared = _matrices(base), 0
    for tensor, stored in expected.items():
        if tensor not in matrices or (actual := _read(*matrices[tensor])).shape != stored.shape:
            continue
        compared += 1
        pairs = zip(stored.row, actual.row, strict=False)
        if not all(math.isclose(one, other, rel_tol=PRECISION, abs_tol=SMALLEST) for one, other in pairs):
            raise ValueError(f"its base {base} has other weights than it was trained on, {tensor} among them")
    if not compared:
        logger.warning("%s: none of the matrices in it is in the safetensors of %s: nothing was compared", path, base)


def _matrices(base: str) -> dict[str, tuple[Path, str]]:
    """Map the name of every matrix of floats to its file and name."""
    folder = Path(base)
    if not folder.is_dir():
        cached = [try_to_load_from_cache(base, name) for name in (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME)]
        folder = next((Path(path).parent for path in cached if isinstance(path, str)), folder)
    matrices = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                part = file.get_slice(name)
                if part.get_dtype() in FLOATS and len(part.get_shape()) == 2:
                    matrices[name] = (path, name)
    return matrices


def _read(path: Path, name: str) -> Numbers:
    with safe_open(path, "pt") as file:
        part = file.get_slice(name)
        shape = part.get_shape()
        return Numbers(shape, part[shape[0] // 2, :NUMBERS].double().tolist())
