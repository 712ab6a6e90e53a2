"""Register this project's model with lmms-eval: the entry point of the group `lmms_eval.models` in pyproject.toml."""

from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """Return the manifest of `crop_llava`, whose class is imported on first use."""
    return ModelManifest("crop_llava", simple_class_path="train.evaluation.lmms_eval.model.CropLlava")
