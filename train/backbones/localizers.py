"""Load a localizer of any family, and count what it costs."""

import torch

from crop_model.localization.base import ModelLocalizer
from crop_model.localization.detected import DETECTORS, ZeroShotLocalizer
from crop_model.localization.generated import Localizer
from data_prep.common.errors import ConfigError, one_line
from train.checkpoints.loading import read_config

from . import BACKBONES
from .checkpoint import Checkpoint


def load_localizer(name: str, dtype: torch.dtype, device: torch.device) -> ModelLocalizer:
    """Load a checkpoint of this project, a grounding detector, or any other model that the Auto classes load.

    Args:
        name: folder or Hub name.
        dtype: of the weights.
        device: where the model is put.

    Raises:
        ConfigError: nothing under that name, or nothing that loads.
    """
    model_type = read_config(name).get("model_type")
    if model_type in BACKBONES:
        checkpoint = Checkpoint.open(name)
        return Localizer(checkpoint.merged(dtype, device), checkpoint.processor())
    kind = ZeroShotLocalizer if model_type in DETECTORS else Localizer
    try:
        return kind.from_pretrained(name, dtype=dtype, device=device)
    except (OSError, ValueError) as error:
        raise ConfigError(f"localizer {name}: {one_line(error)}") from error


def localizer_cost(localizer: ModelLocalizer, text_tokens: int) -> dict[str, int | None]:
    """Count `localizer_macs` and `localizer_flops` of one question by formula; both are None without a formula.

    Args:
        localizer: what `load_localizer` returned.
        text_tokens: of the question, as the answering model's tokenizer and template count them.
    """
    macs = None
    if isinstance(localizer, Localizer) and localizer.model.config.model_type in BACKBONES:
        config = localizer.model.config
        macs = BACKBONES[config.model_type].localizer_macs(config, localizer.processor.tokenizer, text_tokens)
    if macs is None:
        return {"localizer_macs": None, "localizer_flops": None}
    return {"localizer_macs": macs.total, "localizer_flops": macs.flops}
