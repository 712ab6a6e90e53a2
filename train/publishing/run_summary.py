"""Summarise the run that a checkpoint lies in, for the model's card, without naming a path of this machine.

<run>/config.yaml  environment.json  train_log.jsonl      and the manifests of the sidecars that config.yaml names
<run>/final/  <run>/checkpoint-<step>/                    what is exported
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from data_prep.common.errors import ConfigError, DataError
from data_prep.common.fill import default_of, fields_of
from data_prep.hub.dataset_card import card_manifest, stated_licence
from data_prep.sources import Source
from train.arguments.data import DataArguments
from train.arguments.localizer import LocalizerModelArguments, LocalizerTrainingArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.checkpoints.config_file import CONFIG_FILE
from train.checkpoints.environment import ENVIRONMENT_FILE
from train.engine.meter import LOG_FILE
from train.engine.resume import FREE_KEYS, FREE_PREFIXES

# They change nothing that is computed, or only as a product, and still belong into a card.
SHOWN_ALL_THE_SAME = {"per_device_train_batch_size", "gradient_accumulation_steps"}
PLC_ARGUMENTS = (ModelArguments, DataArguments, PlcTrainingArguments)
LOCALIZER_ARGUMENTS = (LocalizerModelArguments, DataArguments, LocalizerTrainingArguments)
LOCALIZER_KEY = "full"  # a key in config.yaml that train.plc does not have
# The card states them elsewhere, or transformers fills them in.
HIDDEN = {"model", "accelerator_config", "use_cpu"}


@dataclass(frozen=True)
class TrainingSource:
    """Hold one entry of `train_data`.

    Args:
        name: of the source.
        questions: rows of its sidecar; None: it has none, or it is not there.
        methods: number of its regions by their origin.
        licence: the stated licence of its annotations.
    """

    name: str
    questions: int | None
    methods: Mapping[str, int]
    licence: str


@dataclass(frozen=True)
class RunFacts:
    """Hold the facts of a run that its card states.

    Args:
        module: `train.plc` or `train.localizer`.
        base_model: Hub name of the model it started from; None: a folder.
        base_name: its name without folders.
        settings: its keys that are not at their defaults, without data and folders.
        sources: what it trained on.
        environment: `train.checkpoints.environment.describe_environment`; empty for a run that wrote none.
        steps, seconds: from the log's last lines; None if they are not there.
    """

    module: str
    base_model: str | None
    base_name: str
    settings: Mapping[str, Any]
    sources: tuple[TrainingSource, ...]
    environment: Mapping[str, Any]
    steps: int | None
    seconds: float | None


def read_run(checkpoint: str) -> RunFacts | None:
    """Read the run that a checkpoint lies in; None if it lies in none, such as a download.

    Raises:
        ConfigError: a config.yaml beside it that is not one of `train.plc`.
    """
    run = Path(checkpoint).parent
    path = run / CONFIG_FILE
    if not Path(checkpoint).is_dir() or not path.is_file():
        return None
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        model, sources = config["model"], [_source(entry) for entry in config["train_data"]]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a configuration of train.plc: {error!r}") from None
    environment = run / ENVIRONMENT_FILE
    steps, seconds = _read_log(run / LOG_FILE)
    # the log covers the whole run
    if (saved := re.fullmatch(r"checkpoint-(\d+)", Path(checkpoint).name)) is not None:
        steps, seconds = int(saved[1]), None
    is_folder = Path(model).exists() or Path(model).is_absolute()
    is_localizer = LOCALIZER_KEY in config
    return RunFacts(
        module="train.localizer" if is_localizer else "train.plc",
        base_model=None if is_folder else model,
        base_name=Path(model).name if is_folder else model,
        settings=_settings(config, LOCALIZER_ARGUMENTS if is_localizer else PLC_ARGUMENTS),
        sources=tuple(sources),
        environment=json.loads(environment.read_text(encoding="utf-8")) if environment.is_file() else {},
        steps=steps,
        seconds=seconds,
    )


def _settings(config: Mapping[str, Any], kinds: Sequence[type]) -> dict[str, Any]:
    defaults = {field.name: default_of(field) for kind in kinds for field in fields_of(kind)}
    hidden = FREE_KEYS - SHOWN_ALL_THE_SAME | HIDDEN
    return {
        key: _without_folder(value)
        for key, value in config.items()
        if key in defaults
        and key not in hidden
        and not key.startswith(FREE_PREFIXES)
        and value != defaults[key]
        and (value or defaults[key])  # an absent value comes back as false from some of transformers' keys
    }


def _without_folder(value: Any) -> Any:
    """Reduce a path to its last component."""
    return Path(value).name if isinstance(value, str) and "/" in value else value


def _source(entry: Mapping[str, Any]) -> TrainingSource:
    try:
        manifest = card_manifest(Path(entry["regions"] or ""))
    except DataError:
        return TrainingSource(Path(entry["annotations"]).stem, None, {}, Source.licence)
    return TrainingSource(manifest.source, manifest.rows, manifest.methods, stated_licence(manifest))


def _read_log(path: Path) -> tuple[int | None, float | None]:
    """Read the last step, and the seconds of the run and of those that it resumed from."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    logged = [json.loads(line) for line in lines if line.endswith("\n")]  # a kill may have cut off the last one
    seconds = [line["train_runtime"] for line in logged if "train_runtime" in line]
    return max((line["step"] for line in logged), default=None), sum(seconds) if seconds else None
