"""Write a run's configuration, with all its defaults, to the file that runs it again."""

import dataclasses
from pathlib import Path
from typing import Any

import yaml
from transformers import TrainingArguments

CONFIG_FILE = "config.yaml"  # in a run's folder


def resolved_config(*parts: Any) -> dict[str, Any]:
    """Make one flat mapping of plain YAML values from filled dataclasses, without keys that hold a Hub token."""
    values: dict[str, Any] = {}
    for part in parts:
        values |= part.to_dict() if isinstance(part, TrainingArguments) else dataclasses.asdict(part)
    return {key: value for key, value in values.items() if not key.endswith("_token")}


def write_config(path: Path, *parts: Any) -> None:
    """Write filled dataclasses as one flat YAML file that `parse_config` reads back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(resolved_config(*parts), sort_keys=False, allow_unicode=True), encoding="utf-8")
