"""Define the keys of an evaluation: the rows of its table, and the data."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Any, TypeVar

import torch
from pydantic import StrictInt

from crop_model.compressor import COMPRESSOR_TYPES
from crop_model.training_free.base import TrainingFreeMethod
from crop_model.training_free.methods import METHODS, training_free_method
from data_prep.common.fill import Checked, key

from .benchmarks import BENCHMARKS
from .benchmarks.source import BenchmarkSource
from .region_choice import LOCALIZER, REGION_SOURCES

DTYPES = ("float32", "bfloat16", "float16")
Group = TypeVar("Group", bound=Checked)


@dataclass(frozen=True)
class RowSpec:
    """Define what one row of the table evaluates. None: as the checkpoint says."""

    checkpoint: str
    compressor_type: str | None = None
    token_budget: StrictInt | None = None
    region_source: str = "oracle"
    seed: StrictInt = 0
    method: str | None = None
    layer: StrictInt = 2
    rest: str = "thinned"
    pruned_tokens: StrictInt | None = None
    convention: str = "after_layer"
    localizer: str | None = None

    def training_free(self) -> TrainingFreeMethod:
        """Build the row's training-free method. ValueError if its keys do not fit."""
        keys = {"layer": self.layer, "rest": self.rest, "convention": self.convention}
        return training_free_method(self.method, **keys, pruned_tokens=self.pruned_tokens)

    def compressor(self) -> dict[str, Any]:
        """Return the keys of the compressor that the row replaces."""
        kind = self.training_free().replaces or self.compressor_type
        values = {"compressor_type": kind, "token_budget": self.token_budget}
        return {key: value for key, value in values.items() if value is not None}

    def mistakes(self) -> Iterator[str]:
        """Yield a line for each value that is unknown or does not fit another."""
        if self.compressor_type not in (None, *COMPRESSOR_TYPES):
            yield f"compressor_type: {self.compressor_type!r} is none of {', '.join(COMPRESSOR_TYPES)}"
        if self.region_source not in (*REGION_SOURCES, LOCALIZER):
            yield f"region_source: {self.region_source!r} is none of {', '.join([*REGION_SOURCES, LOCALIZER])}"
        if (self.region_source == LOCALIZER) != (self.localizer is not None):
            yield "localizer: it goes with region_source localizer, and that with it"
        try:
            method = self.training_free()
        except ValueError as error:
            yield str(error)
            return
        if not method.reads_region and self.region_source != "global":
            yield f"region_source: {self.method} looks at no region; say global"
        if method.replaces and self.compressor_type is not None:
            yield f"compressor_type: {self.method} takes the place of a compressor; leave it out"


def _with_lists(group: type[Group]) -> type[Group]:
    """Make a class a dataclass with the keys of `RowSpec`, each with one value or a list of them."""
    keys = [(column.name, column.type | list[column.type], field(default=column.default)) for column in fields(RowSpec)]  # type: ignore
    names = {name: getattr(group, name) for name in ("__doc__", "__module__")}
    return make_dataclass(group.__name__, keys, bases=(group,), namespace=names, frozen=True)


@_with_lists
class RowGroup(Checked):
    """Hold the keys of `RowSpec`, each with one value or a list of them: a row for every combination."""

    def mistakes(self) -> Iterator[str]:
        yield from dict.fromkeys(line for spec in self.specs() for line in spec.mistakes())

    def specs(self) -> list[RowSpec]:
        """Return the combinations, the last key's values changing fastest."""
        values = [getattr(self, column.name) for column in fields(RowSpec)]
        return [RowSpec(*row) for row in itertools.product(*[v if isinstance(v, list) else [v] for v in values])]


@dataclass
class EvaluateArguments(Checked):
    """Define what to evaluate, and where the results go."""

    rows: list[RowGroup] = key(
        list,
        f"List of {{{', '.join(column.name for column in fields(RowSpec))}}}; all but the first may be left out. A "
        "list as a value stands for a row each, several lists for every combination of them. "
        f"method: {', '.join(METHODS)}. localizer: the checkpoint that finds the regions of region_source localizer.",
    )
    benchmarks: list[BenchmarkSource] = key(
        list,
        "Public benchmarks, in place of eval_data: list of {name, path, image_root, ocr_tokens}. path: the folder "
        "with the files as they are published, or the file of another split; image_root: what LLaVA's scripts call "
        "image-folder, where MMBench's images are written to; ocr_tokens: true puts the images' text into TextVQA's "
        f"prompts, as LLaVA does. name: {', '.join(BENCHMARKS)}.",
    )
    output_dir: str = key("runs/evaluation", "The folder for evaluation.json, evaluation.md and the predictions.")
    dataset: str | None = key(None, "The data's name in the results; the annotation files' names unless given.")
    num_samples: int | None = key(
        None,
        "The number of questions to ask of each benchmark, the first ones; parts of POPE and MME are then missing.",
    )
    batch_size: int = key(32, "The number of questions answered together, on each process.")
    max_new_tokens: int = key(16, "The length of the longest answer, in tokens.")
    ttft_samples: int = key(8, "The number of questions that measure the time to the first token; 0: not measured.")
    dtype: str = key("float32", "The dtype of the weights.", choices=DTYPES)
    resume: bool = key(False, "Whether a stopped evaluation into output_dir resumes: no batch is answered twice.")

    def mistakes(self) -> Iterator[str]:
        for name, least in (("batch_size", 1), ("max_new_tokens", 1), ("num_samples", 1), ("ttft_samples", 0)):
            value = vars(self).get(name)  # absent if it is wrong: the others are checked all the same
            if value is not None and value < least:
                yield f"{name}: must be at least {least}, got {value}"
        labels = [source.label for source in self.benchmarks]
        if len(set(labels)) < len(labels):
            yield f"benchmarks: one is there twice: {', '.join(labels)}"
        if "mme" in labels and (self.num_samples or 0) % 2:
            yield "num_samples: MME's questions come in pairs, so it must be even"
        if not self.specs():
            yield "rows: nothing to evaluate"

    def specs(self) -> list[RowSpec]:
        """Return every row of the table."""
        return [spec for group in self.rows for spec in group.specs()]

    @property
    def torch_dtype(self) -> torch.dtype:
        """Return the dtype that `dtype` names."""
        dtype = getattr(torch, self.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype
