"""Run a training from its configuration to `final`: what the commands of all trainings share.

Errors in a call or its data are found before the model is loaded.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets
import deepspeed
from transformers import TrainerCallback

from data_prep.common.command_line import read_text
from data_prep.common.errors import DataError, RunError
from data_prep.common.fill import refuse
from train.arguments.data import DataArguments
from train.arguments.model import ModelArguments
from train.arguments.training import PlcTrainingArguments
from train.checkpoints import base_weights
from train.checkpoints.config_file import CONFIG_FILE, write_config
from train.checkpoints.environment import ENVIRONMENT_FILE, describe_environment
from train.checkpoints.loading import named
from train.checkpoints.universal import is_universal, load_as_universal
from train.data.packing import PackedRows
from train.data.quarantine import QUARANTINE_FILE, BadSample, Quarantine
from train.data.region_augmentation import RegionNoiseData, add_located
from train.data.samples import SourceCount, load_samples
from train.pictures.callback import PictureCallback

from .overview import print_overview
from .parameter_groups import what_trains
from .profiler import ProfileCallback
from .resume import ResumeCheck, check_identity, checkpoint_to_resume, run_identity
from .starting_model import load_to_train, open_to_train
from .stop_on_signal import STOPPED_STATUS, StopOnSignal
from .trainer import PlcTrainer


def run(model_arguments: ModelArguments, data_arguments: DataArguments, args: PlcTrainingArguments) -> None:
    """Train as a command: a signal stops it at its next step, and the processes part when it ends."""
    with StopOnSignal() as stop:
        trainer = train(model_arguments, data_arguments, args, stop)
        # a thread of the connection between the processes may abort a finished process if it still runs at exit
        trainer.accelerator.end_training()


def train(
    model_arguments: ModelArguments,
    data_arguments: DataArguments,
    args: PlcTrainingArguments,
    stop: StopOnSignal | None = None,
) -> PlcTrainer:
    """Train as configured and save the result to `final` in the output folder.

    Raises:
        ConfigError, DataError: what is wrong with the call or the data, before the first step.
        RunError: a loss that is not finite, a resumed schedule that does not fit, an image that does not open.
        SystemExit: `stop` noted a signal: with `STOPPED_STATUS`, behind a saved step.
    """
    stop = stop or StopOnSignal()
    if args.deepspeed:  # before the model is built: ZeRO-3 spreads its weights while they are loaded
        deepspeed.init_distributed()
    checkpoint = checkpoint_to_resume(args)
    trainer = build_trainer(model_arguments, data_arguments, args)
    trainer.add_callback(stop)
    if checkpoint is not None and is_universal(checkpoint):
        load_as_universal(trainer.accelerator)
    if args.process_index == 0:
        trainer.identity = run_identity(trainer.samples, model_arguments, data_arguments, args)
        if checkpoint is not None:
            check_identity(checkpoint, trainer.identity, args.resume_with_changes)
            if not args.resume_with_changes:
                named(checkpoint, base_weights.check, base=model_arguments.model)
        write_config(Path(args.output_dir) / CONFIG_FILE, model_arguments, data_arguments, args)
        environment = describe_environment("bfloat16" if args.bf16 else "float32")
        Path(args.output_dir, ENVIRONMENT_FILE).write_text(json.dumps(environment, indent=1), encoding="utf-8")
        print(what_trains(trainer.model, args), flush=True)
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except DataError as error:
        raise RunError(str(error)) from error
    if stop.stopped:
        if args.process_index == 0:
            print(f"stopped by a signal; resume_from_checkpoint=last resumes at step {trainer.state.global_step}")
        raise SystemExit(STOPPED_STATUS)
    trainer.save_final()
    return trainer


def build_trainer(
    model_arguments: ModelArguments, data_arguments: DataArguments, args: PlcTrainingArguments
) -> PlcTrainer:
    """Do everything before the first step; the samples are read and checked before the model is loaded."""
    refuse(_mistakes(model_arguments, data_arguments, args))
    checkpoint = open_to_train(model_arguments, args)
    processor = checkpoint.processor(**model_arguments.processor())
    if model_arguments.chat_template is not None:
        processor.chat_template = read_text(model_arguments.chat_template)
    bad: list[BadSample] | None = [] if args.on_bad_sample == "skip" else None
    counts: list[SourceCount] = []
    with args.main_process_first(desc="the samples"):  # the other processes find them in the cache
        train_samples = load_samples(
            data_arguments.train_data,
            processor,
            data_arguments.max_length,
            args.seed,
            args.split_turns,
            bad,
            counts if args.process_index == 0 else None,  # the others print none
        )
        eval_samples = None
        if data_arguments.eval_data:
            eval_samples = load_samples(
                data_arguments.eval_data, processor, data_arguments.max_length, args.seed, bad=bad
            )
    if args.localizer_regions:
        train_samples = add_located(train_samples, args.localizer_regions)
    quarantine = None if bad is None else _quarantine(args, len(train_samples) + len(eval_samples or ()), bad)
    collator = checkpoint.backbone.collator(processor, data_arguments.max_image_pixels, skip_bad=bad is not None)
    rows = _rows(train_samples, args)
    print_overview(train_samples, counts, len(rows), collator, args)
    callbacks: list[TrainerCallback] = [ResumeCheck()]
    if args.profile_steps:
        callbacks.append(ProfileCallback(Path(args.output_dir) / "profile", args.profile_steps))
    if args.picture_steps and eval_samples is not None:
        callbacks.append(PictureCallback(eval_samples, collator, args.picture_steps))
    return PlcTrainer(
        model=load_to_train(checkpoint, model_arguments, args),
        args=args,
        data_collator=collator,
        train_dataset=rows,
        samples=train_samples,
        eval_dataset=eval_samples,
        processing_class=processor,
        callbacks=callbacks,
        quarantine=quarantine,
    )


def _mistakes(model: ModelArguments, data: DataArguments, args: PlcTrainingArguments) -> Iterator[str]:
    """Yield a line for each mistake that shows only if all keys are seen together; it begins with the key."""
    if not data.train_data:
        yield "train_data: no data to train on"
    if not data.eval_data and (args.eval_strategy != "no" or args.picture_steps):
        yield "eval_data: eval_strategy and picture_steps need it"
    if args.pack_length is not None:
        if args.pack_length < data.max_length:
            yield f"pack_length: {args.pack_length} is below max_length, {data.max_length}"
        if model.attn_implementation == "flash_attention_2" and args.per_device_train_batch_size > 1:
            yield "per_device_train_batch_size: FlashAttention takes packed rows one by one: 1 of a longer pack_length"


def _quarantine(args: PlcTrainingArguments, good: int, bad: Sequence[BadSample]) -> Quarantine:
    """Create the quarantine with the bad samples of the loading. Raises DataError above `max_bad_fraction`."""
    quarantine = Quarantine(
        Path(args.output_dir) / QUARANTINE_FILE,
        total=good + len(bad),
        max_bad_fraction=args.max_bad_fraction,
        writes=args.process_index == 0,
        resumed=args.resume_from_checkpoint is not None,
    )
    quarantine.add(bad)
    return quarantine


def _rows(samples: datasets.Dataset, args: PlcTrainingArguments) -> datasets.Dataset | PackedRows | RegionNoiseData:
    """Pack the samples and put noise on their regions, if that is configured."""
    data = samples
    if args.pack_length is not None:
        global_batch = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        data = PackedRows(samples, args.pack_length, args.seed, global_batch)
    noise = args.region_noise()
    return data if noise.is_off else RegionNoiseData(data, noise)
