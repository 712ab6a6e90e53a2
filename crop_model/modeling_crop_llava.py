"""Define LLaVA with a compressor between its vision tower and its projector.

    pixels ─► vision_tower ─► compressor ─► multi_modal_projector ─► language_model
                (B, N, D)  ▲   (B, T, D)          (B, T, H)
                           │
                      region_mask (B, N)

Everything except the compressor is transformers' own LLaVA, under its own parameter names: a llava-hf checkpoint loads
as it is, and only the compressor's keys are new.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import LlavaForConditionalGeneration, LlavaModel, LlavaPreTrainedModel
from transformers.cache_utils import Cache
from transformers.configuration_utils import PreTrainedConfig
from transformers.conversion_mapping import get_checkpoint_conversion_mapping, register_checkpoint_conversion_mapping
from transformers.integrations import is_deepspeed_zero3_enabled
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils.generic import can_return_tuple

from .compressor import CompressorConfig
from .compressor_base import Compressor
from .configuration_crop_llava import CropLlavaConfig

COMPRESSOR_PREFIX = "model.compressor."

# transformers renames the keys of llava-hf checkpoints by model type and class name. Without these two lines a new
# model type matches none of them, and the language model keeps its random initialisation with no more than a report.
for _name, _llava in ((CropLlavaConfig.model_type, "llava"), ("CropLlavaModel", "LlavaModel")):
    register_checkpoint_conversion_mapping(_name, get_checkpoint_conversion_mapping(_llava), overwrite=True)


class CropLlavaPreTrainedModel(LlavaPreTrainedModel):
    """Tie the configuration to the models and let the compressor initialise itself."""

    config: CropLlavaConfig
    config_class = CropLlavaConfig

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Compressor):
            module.reset_parameters()


class CropLlavaModel(CropLlavaPreTrainedModel, LlavaModel):
    """Join LLaVA's vision tower, compressor, projector and language model, without the head."""

    def __init__(self, config: CropLlavaConfig):
        super().__init__(config)
        self.compressor = CompressorConfig.from_config(config).build()
        self.post_init()

    def get_image_features(
        self,
        pixel_values: torch.Tensor,
        region_mask: torch.Tensor | None = None,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPooling:
        """Encode, compress and project images.

        Args:
            pixel_values: (B, 3, S, S).
            region_mask: (B, N) bool over the patch grid in raster order; None: no region is known for any image. It is
                named here because `generate` passes on only the arguments of this signature.
            vision_feature_layer, vision_feature_select_strategy: as in LLaVA, by default the configuration's.

        Returns:
            The vision tower's output; `pooler_output` is a list of B tensors (T, H), what the language model reads.
        """
        layer = self.config.vision_feature_layer if vision_feature_layer is None else vision_feature_layer
        strategy = vision_feature_select_strategy or self.config.vision_feature_select_strategy
        outputs = self._run_vision_tower(pixel_values)
        layers = [layer] if isinstance(layer, int) else layer
        first_patch = 1 if strategy == "default" else 0  # "default" drops CLS
        features = torch.cat([outputs.hidden_states[i][:, first_patch:] for i in layers], dim=-1)  # (B, N, D)
        if region_mask is None:
            region_mask = torch.zeros(features.shape[:2], dtype=torch.bool, device=features.device)
        tokens = self.compressor(features, region_mask.to(features.device))  # (B, T, D)
        outputs.pooler_output = list(self.multi_modal_projector(tokens))  # B times (T, H)
        return outputs

    def _run_vision_tower(self, pixel_values: torch.Tensor) -> BaseModelOutputWithPooling:
        # Gradient checkpointing makes the tower's embeddings require gradients, which would store a frozen tower's
        # activations and run a useless backward pass through it.
        trains = any(parameter.requires_grad for parameter in self.vision_tower.parameters())
        with torch.set_grad_enabled(torch.is_grad_enabled() and trains):
            return self.vision_tower(pixel_values, output_hidden_states=True, return_dict=True)

    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        region_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        vision_feature_layer: int | list[int] | None = None,
        vision_feature_select_strategy: str | None = None,
        image_sizes: torch.Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ):
        """Run LLaVA's forward with `region_mask` (number of images, N) beside `pixel_values`.

        ValueError for `image_sizes`, which LLaVA takes for towers of variable resolution without a fixed patch grid.
        """
        if image_sizes is not None:
            raise ValueError("image_sizes: a compressor needs one patch grid for all images")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)  # (B, L, H)
        encoded = (mm_encoder_outputs or {}).get("image")
        if pixel_values is not None:
            encoded = self.get_image_features(
                pixel_values, region_mask, vision_feature_layer, vision_feature_select_strategy
            )
        visual_tokens = None
        if encoded is not None:
            visual_tokens = torch.cat(encoded.pooler_output).to(inputs_embeds.device, inputs_embeds.dtype)
            # (number of images * T, H) -> the placeholders, in order
            placeholders = self.get_placeholder_mask(input_ids, inputs_embeds, visual_tokens)
            inputs_embeds = inputs_embeds.masked_scatter(placeholders, visual_tokens)
        elif past_key_values is None and (self.training or is_deepspeed_zero3_enabled()):
            inputs_embeds = inputs_embeds + self._zero_of_a_blank_image(inputs_embeds)
        outputs = super().forward(
            inputs_embeds=inputs_embeds, past_key_values=past_key_values, return_dict=True, **kwargs
        )
        outputs.image_hidden_states = visual_tokens
        return outputs

    def _zero_of_a_blank_image(self, inputs_embeds: torch.Tensor) -> torch.Tensor:
        """Compute a zero that depends on compressor and projector.

        A batch of text alone would leave them without gradients on this rank, while the other ranks wait to average
        theirs. Under ZeRO-3 the others also wait for this rank's part of the weights, in evaluation too.
        """
        side = self.config.vision_config.image_size
        blank = torch.zeros(1, 3, side, side, dtype=self.vision_tower.dtype, device=inputs_embeds.device)
        (tokens,) = self.get_image_features(blank).pooler_output  # (T, H)
        return 0 * tokens.sum().to(inputs_embeds.dtype)


class CropLlavaForConditionalGeneration(CropLlavaPreTrainedModel, LlavaForConditionalGeneration):
    """Answer from `token_budget` visual tokens per image, most of them spent on `region_mask`."""

    def __init__(self, config: CropLlavaConfig):
        LlavaPreTrainedModel.__init__(self, config)  # not LLaVA's own, which would build its plain model first
        self.model = CropLlavaModel(config)
        self.lm_head = torch.nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        pixel_values: torch.Tensor | None = None,
        region_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ):
        """Run `LlavaForConditionalGeneration.forward`; `region_mask` (number of images, N) goes with `pixel_values`.

        `position_ids`, `mm_encoder_outputs` and `logits_to_keep` are named because `generate` looks for them in this
        signature: without the second it repeats the pixels for beam search, image by image, which mixes up the images
        of a sample of two; without the third it computes the logits of a whole prompt where only the last are used.
        """
        return super().forward(
            input_ids=input_ids,
            pixel_values=pixel_values,
            region_mask=region_mask,
            position_ids=position_ids,
            mm_encoder_outputs=mm_encoder_outputs,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )

    def get_image_features(self, pixel_values: torch.Tensor, region_mask: torch.Tensor | None = None, **kwargs: Any):
        return self.model.get_image_features(pixel_values, region_mask, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, output_loading_info: bool = False, **kwargs):
        """Load a llava-hf or a crop_llava checkpoint, by name or folder, completely or not at all.

        Keyword arguments that name a key of `CropLlavaConfig` override it. The compressor's own weights may be missing
        from a checkpoint that has no compressor of the configured type; it then starts from its initialisation.

        ValueError if any other weight is missing, unexpected or of another shape.
        """
        kwargs.setdefault("ignore_mismatched_sizes", True)  # below it is an error that names one
        name = pretrained_model_name_or_path
        with _held_load_report() as report:
            model, info = super().from_pretrained(name, *args, output_loading_info=True, **kwargs)
            stored, _ = PreTrainedConfig.get_config_dict(name)
            has_this_compressor = stored.get("compressor_type") == model.config.compressor_type
            _check_loaded_whole(str(name), info, compressor_may_differ=not has_this_compressor)
            if not (info["unexpected_keys"] or info["mismatched_keys"]):
                report.clear()  # only a new compressor is missing, which transformers reports like a loss
        return (model, info) if output_loading_info else model


@contextmanager
def _held_load_report() -> Iterator[list[logging.LogRecord]]:
    """Hold back transformers' report on missing weights, and log at the end what is still in the list."""
    logger, held = logging.getLogger("transformers.modeling_utils"), list[logging.LogRecord]()

    def pass_on(record: logging.LogRecord) -> bool:
        if is_report := "LOAD REPORT" in record.getMessage():
            held.append(record)
        return not is_report

    logger.addFilter(pass_on)
    try:
        yield held
    finally:
        logger.removeFilter(pass_on)
        for record in held:
            logger.handle(record)


def _check_loaded_whole(name: str, info: dict[str, Any], compressor_may_differ: bool) -> None:
    for problem, keys in (
        ("missing", info["missing_keys"]),
        ("unexpected", info["unexpected_keys"]),
        ("of another shape", {key for key, *_ in info["mismatched_keys"]}),
    ):
        wrong = sorted(k for k in keys if not (compressor_may_differ and k.startswith(COMPRESSOR_PREFIX)))
        if wrong:
            raise ValueError(f"{name}: {len(wrong)} weights are {problem}, the first is {wrong[0]}")
