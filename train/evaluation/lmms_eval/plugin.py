"""Tells lmms-eval of this project's model: the entry point of the group `lmms_eval.models` in pyproject.toml."""

from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """The model that lmms-eval calls `crop_llava`; its class is imported when it is asked for."""
    return ModelManifest("crop_llava", simple_class_path="train.evaluation.lmms_eval.model.CropLlava")
