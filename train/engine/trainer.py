"""Extend transformers' Trainer: learning rates by module group, sample order, measured steps, complete checkpoints.

The Trainer itself does everything else: the loop, accumulation, the loss by target tokens, DeepSpeed, resuming.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import EvalPrediction, Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import rotate_checkpoints

from data_prep.common.errors import RunError
from train.arguments.training import PlcTrainingArguments
from train.backbones import BACKBONES
from train.checkpoints import base_weights
from train.checkpoints.folders import STAGING, clear_staging, publish, write_manifest
from train.data.quarantine import Quarantine
from train.data.region_augmentation import RegionNoiseData, WithEpoch
from train.data.sampler import EpochSampler

from .meter import StepMeter
from .packed_attention import BY_SAMPLE
from .parameter_groups import parameter_groups, shape_of, trainable_parameters


class PlcTrainer(Trainer):
    """Train with one learning rate per module group and the measurements of `StepMeter`.

    Args (beyond the Trainer's):
        samples: the training samples, before they are packed or augmented.
        quarantine: collects the bad samples that the collator reports; None: they are errors.
    """

    args: PlcTrainingArguments
    optimizer: torch.optim.Optimizer | None

    def __init__(
        self, *args: Any, samples: datasets.Dataset, quarantine: Quarantine | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, compute_metrics=mean_exact_match, preprocess_logits_for_metrics=exact_matches, **kwargs)
        self.label_names = ["labels"]  # the model passes them on by keyword, so its signature does not name them
        self.samples, self.quarantine = samples, quarantine
        self._step_samples: list[str] = []  # sample_ids of the current update, in this process
        config = self.model.config
        shape = BACKBONES[config.model_type].model_shape(config)
        adapter = sum(shape_of(p).numel() for _, p in trainable_parameters(self.model).get("lora", []))
        self.meter = StepMeter(self.accelerator, self.processing_class.image_token_id, shape, self.args.bf16, adapter)
        self.add_callback(self.meter)
        self.identity: dict[str, Any] = {}  # `train.engine.resume.run_identity`, stored in checkpoints
        self._saving_aside = False
        base = self.model.peft_config["default"].base_model_name_or_path if isinstance(self.model, PeftModel) else None
        # sampled now, while the files are those that were loaded
        self._base_weights = base_weights.sample(base) if base and self.args.should_save else {}

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create AdamW, or the optimizer that `optim` names, over `parameter_groups`."""
        if self.optimizer is None:
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, self.model)
            self.optimizer = optimizer_class(parameter_groups(self.model, self.args), **options)
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        """Create an `EpochSampler`, shuffled or grouped by length; other strategies are the Trainer's.

        Packed rows have similar lengths and are shuffled. Under region noise each index comes with its epoch.
        """
        sampler = self._order_of(self.train_dataset)
        noisy = isinstance(self.train_dataset, RegionNoiseData)
        return WithEpoch(sampler, self._epoch) if noisy and sampler is not None else sampler

    def _order_of(self, data: Any) -> Sampler | None:
        args = self.args
        if args.train_sampling_strategy not in ("group_by_length", "random"):
            return super()._get_train_sampler(data)
        grouped = args.train_sampling_strategy == "group_by_length" and args.pack_length is None
        return EpochSampler(
            count=len(data),
            seed=args.seed if args.data_seed is None else args.data_seed,
            epoch=self._epoch,
            lengths=self.samples[args.length_column_name] if grouped else None,
            global_batch=args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        )

    def _epoch(self) -> int:
        return int(self.state.epoch or 0)

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Tensor | int | None]:
        with self.meter.data():
            batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.meter.count(batches)
        bad = [sample for batch in batches for sample in batch.pop("bad_samples", [])]
        if self.quarantine is not None:
            self.quarantine.collect(bad, self.accelerator)
        self._step_samples = [key for batch in batches for key in batch["sample_ids"]]
        # an update whose samples are all bad has no target token: a loss of 0 and not of 0 / 0
        return batches, num_items.clamp(min=1) if isinstance(num_items, Tensor) else num_items

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Run one forward and backward pass. Raises RunError if the loss is not finite."""
        sample_ids = inputs.pop("sample_ids")
        sizes = inputs.pop("sample_sizes", None)
        if sizes is not None and self.model.config.get_text_config()._attn_implementation == BY_SAMPLE:
            inputs["sample_lengths"] = [[tokens for tokens, _ in row] for row in sizes]
        with self.meter.forward_backward():
            loss = super().training_step(model, inputs, num_items_in_batch)
        self._check_finite("loss", loss, sample_ids)
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Return the gradient's norm before the optimizer's step. Raises RunError if it is not finite."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None:
            self._check_finite("gradient norm", torch.as_tensor(norm), self._step_samples)
        return norm

    def _check_finite(self, name: str, value: Tensor, sample_ids: list[str]) -> None:
        """Raise RunError if a value is not finite, after writing the sample_ids of this process to disk."""
        if torch.isfinite(value):
            return
        step, rank = self.state.global_step, self.args.process_index
        file = Path(self.args.output_dir) / f"nonfinite-rank{rank}.json"
        file.write_text(json.dumps({"after_step": step, name: str(value.item()), "sample_ids": sample_ids}, indent=1))
        raise RunError(f"{name} is {value.item()} after step {step}, samples {' '.join(sample_ids)} (also in {file})")

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate and restore the random state, so that evaluation does not change the training after it."""
        with torch.random.fork_rng(devices=[self.args.device] if self.args.device.type == "cuda" else []):
            return super().evaluate(*args, **kwargs)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """Return loss, logits and labels only: ranks exchange every output, and a rank without images lacks some."""
        inputs.pop("sample_ids")
        bad = inputs.pop("bad_samples", [])
        if self.quarantine is not None:
            self.quarantine.collect(bad, self.accelerator)
        unused = ["past_key_values", "image_hidden_states"]
        return super().prediction_step(model, inputs, prediction_loss_only, [*(ignore_keys or []), *unused])

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the meter's figures to training logs; its learning rates replace the one of the first group."""
        if "learning_rate" in logs:
            del logs["learning_rate"]
            logs |= self.meter.read()
        super().log(logs, start_time)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load an adapter as the Trainer does, and whole weights by the model's class, which knows their names on disk.

        The Trainer only warns of names that are not the model's own, and resumes from the base's weights instead.
        """
        model = self.model if model is None else model
        if isinstance(model, PeftModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:  # in fp32: trainable weights are stored so under the configuration of a bf16 model
            whole = BACKBONES[self.model.config.model_type].model_class
            model.load_state_dict(whole.from_pretrained(resume_from_checkpoint, dtype=torch.float32).state_dict())

    def _load_best_model(self) -> None:
        """Load the best checkpoint as `_load_from_checkpoint` does, unless DeepSpeed's engine holds the weights."""
        if self.is_deepspeed_enabled or isinstance(self.model, PeftModel):
            super()._load_best_model()
        else:
            self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def _run_epoch(self, **kwargs: Any) -> None:
        """Run an epoch unless a resumed run is at its last step: the Trainer would take one more."""
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(**kwargs)

    def _get_output_dir(self, trial: Any = None) -> str:
        folder = super()._get_output_dir(trial)
        return str(Path(folder) / STAGING) if self._saving_aside else folder

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        """Write the Trainer's checkpoint aside and rename it when it is whole; only then remove older ones."""
        run, name = Path(self.args.output_dir), f"checkpoint-{self.state.global_step}"
        staged = self._aside(name)
        self._saving_aside = True
        super()._save_checkpoint(model, trial)
        self._saving_aside = False
        if self.state.best_global_step == self.state.global_step:  # the Trainer named the folder it was written to
            self.state.best_model_checkpoint = str(run / name)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self.state.save_to_json(str(staged / TRAINER_STATE_NAME))
            write_manifest(staged, self.state.global_step, self.args.world_size, self.identity)
            publish(run, name)
            rotate_checkpoints(str(run), self.args.save_total_limit, self.state.best_model_checkpoint, use_mtime=True)
        self.accelerator.wait_for_everyone()

    def save_final(self) -> None:
        """Write the trained model to the run's folder `final`, which is whole as soon as it exists."""
        staged = self._aside("final")
        self.save_model(str(staged))
        if self.args.should_save:
            publish(Path(self.args.output_dir), "final")
        self.accelerator.wait_for_everyone()

    def _aside(self, name: str) -> Path:
        """Return the path to write a folder of that name to, after `_saving` has been emptied for all processes."""
        run = Path(self.args.output_dir)
        if self.args.should_save:
            clear_staging(run)
        self.accelerator.wait_for_everyone()
        return run / STAGING / name

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Write the Trainer's files, and what PEFT leaves out: the model's configuration and numbers of its base."""
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            base_weights.write(Path(output_dir or self.args.output_dir), self._base_weights)
            config = copy.copy(self.model.config)
            vars(config).pop("quantization_config", None)  # QLoRA's adapter fits unquantised weights too
            config.save_pretrained(output_dir or self.args.output_dir)


def exact_matches(logits: Tensor, labels: Tensor) -> Tensor:  # (B, L, V), (B, L)
    """Return (B,): 1 if the most likely token is right at every supervised position, 0 if not, -1 without any.

    With teacher forcing this equals an exact match of the greedily decoded answer: as long as every token is
    right, both see the same prefix. The accuracy during training therefore costs no generation.
    """
    predicted, expected = logits[:, :-1].argmax(dim=-1), labels[:, 1:]  # (B, L-1)
    ignored = expected == -100
    right = ((predicted == expected) | ignored).all(dim=1).long()
    return right.masked_fill(ignored.all(dim=1), -1)


def mean_exact_match(prediction: EvalPrediction) -> dict[str, float]:
    """Compute the share of samples whose answer is right to the token; bad samples have no answer and do not count."""
    answered = prediction.predictions[prediction.predictions >= 0]
    return {"exact_match": float(answered.mean()) if answered.size else 0.0}
