"""Write an export, prove that it loads without this project, and put it in its place.

    OUT/  model*.safetensors  config.json (auto_map)  generation_config.json      LoRA merged, or kept in adapter/
          processor_config.json  tokenizer files  chat_template.jinja
          modeling_crop_llava.py and the files it imports
          README.md  region.png  .eval_results/

The folder is written under another name, loaded with Auto classes in a process that cannot import this project, and
takes its place only if that process computes what the checkpoint does. A failure leaves everything as it was.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from data_prep.common.errors import ConfigError, ExportError
from data_prep.hub.upload import EXPORT, check_push, push_folder
from train.backbones import BACKBONES
from train.backbones.checkpoint import Checkpoint
from train.checkpoints.folders import MANIFEST, check_whole, share_weights
from train.evaluation.report import read_evaluation

from . import proof as export_proof
from .arguments import ExportArguments
from .model_card import PICTURE, write_card
from .proof_request import draw_request, read_request, write_request
from .run_summary import read_run

# What the rounding of merged LoRA may change in the logits: a share of the largest one, at least of 1.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


def export(arguments: ExportArguments) -> Path:
    """Write the export, prove it and put it in its place; upload it if `push_to` is given.

    Raises:
        ConfigError, RegionError: no such checkpoint, a destination that must not be replaced, or a request for the
            proof that makes no sense; all before the model is loaded.
        ExportError: a checkpoint that is not whole, or an export that does not compute what it does.
        RunError: the Hub refused, if possible before the model is loaded; else the folder stays.
        SafetensorError, OSError: there is no room for it.
    """
    out = Path(arguments.out)
    with _damage(arguments.checkpoint):
        if (Path(arguments.checkpoint) / MANIFEST).is_file():
            check_whole(Path(arguments.checkpoint))
        checkpoint = Checkpoint.open(arguments.checkpoint)
    if not checkpoint.backbone.compresses:
        return _export_merged(arguments, checkpoint, out)
    config = checkpoint.config
    if not config.compressor_config.travels:
        raise ConfigError(
            f"compressor_type: {config.compressor_type!r} is not of crop_model, whose files alone an export carries"
        )
    _check_destination(out, arguments)
    run = read_run(arguments.checkpoint)
    evaluation = None if arguments.evaluation is None else _read_evaluation(arguments.evaluation)
    image, query = read_request(arguments.image, arguments.question, arguments.region)
    check_push(arguments, EXPORT)
    dtype = config.dtype or torch.float32
    with _new_folder(out) as staged:
        request = staged.with_name("request")
        write_request(request, image, query)
        model, processor = _load(checkpoint, dtype, staged.with_name("checkpoint"))
        expected = export_proof.compute(model, processor, request)
        picture = draw_request(model, processor, request)
        has_adapter = write_model(model, processor, staged, arguments.merge, arguments.max_shard_size)
        picture.save(staged / PICTURE)
        write_card(
            staged,
            model.config,
            processor,
            name=arguments.push_to or out.name,
            checkpoint=arguments.checkpoint,
            has_adapter=has_adapter,
            run=run,
            evaluation=evaluation,
            base_model=arguments.base_model,
            model_license=arguments.license,
            datasets=arguments.datasets,
        )
        difference = prove(staged, request, expected, dtype)
    print(f"{out}: loads without this project; logits differ by at most {difference:.1e} from the checkpoint's")
    if arguments.push_to is not None:
        push_folder(out, arguments, EXPORT)
    return out


def _export_merged(arguments: ExportArguments, checkpoint: Checkpoint, out: Path) -> Path:
    """Export a localizer without a compressor: merged, in its own dtype, without proof and card."""
    plain = ExportArguments(checkpoint=arguments.checkpoint, out=arguments.out, overwrite=arguments.overwrite)
    if arguments != plain:
        key = next(item.name for item in fields(plain) if getattr(arguments, item.name) != getattr(plain, item.name))
        title = checkpoint.backbone.title
        raise ConfigError(f"{key}: not read for a {title}, whose export is its merged weights in a folder")
    _check_destination(out, arguments)
    with _new_folder(out) as staged:
        whole = staged.with_name("checkpoint")
        with _damage(arguments.checkpoint, str(whole)):
            checkpoint = checkpoint.with_weights(whole)
            checkpoint.backbone.save(checkpoint.merged("auto"), checkpoint.processor(), staged)
    print(f"{out}: loads with the Auto classes")
    return out


def _load(checkpoint: Checkpoint, dtype: torch.dtype, folder: Path) -> tuple[Any, Any]:
    """Load model and processor; weights that only an engine's states hold are written to `folder` first."""
    with _damage(checkpoint.name, str(folder)):
        whole = checkpoint.with_weights(folder)
        processor = whole.processor()
        if processor.chat_template is None:
            raise ConfigError(f"model {checkpoint.name}: its processor has no chat template")
        return whole.model(dtype), processor


@contextmanager
def _damage(checkpoint: str, *other_names: str) -> Iterator[None]:
    """Turn the error of a checkpoint that exists and does not load into a failed run: it is no wrong call."""
    try:
        yield
    except ConfigError as error:
        if not Path(checkpoint).is_dir():
            raise
        reason = str(error)
        for name in (checkpoint, *other_names):
            reason = reason.removeprefix(f"model {name}: ").removeprefix(f"{name}: ")
        raise ExportError(f"checkpoint {checkpoint}: {reason}") from None


def write_model(
    model: PreTrainedModel | PeftModel, processor: Any, folder: Path, merge: bool, max_shard_size: str
) -> bool:
    """Write weights, configuration, processor and source files; return whether an adapter lies beside the weights."""
    has_adapter = isinstance(model, PeftModel) and not merge
    if isinstance(model, PeftModel):
        if has_adapter:
            _write_adapter(model, folder / export_proof.ADAPTER)
        model = model.unload() if has_adapter else model.merge_and_unload()
    BACKBONES[model.config.model_type].save(model, processor, folder, max_shard_size=max_shard_size)
    return has_adapter


def _write_adapter(model: PeftModel, folder: Path) -> None:
    """Write the adapter without the name of the base it was trained on, which may be a path of this machine."""
    model.save_pretrained(folder)
    (folder / "README.md").unlink()  # PEFT's card, which names it too
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "base_model_name_or_path": None}, indent=2) + "\n", encoding="utf-8")


def prove(folder: Path, request: Path, expected: dict[str, Tensor], dtype: torch.dtype) -> float:
    """Let a process without this project compute the request, and return the largest difference of logits.

    Raises:
        ExportError: it failed, or computed anything else than `expected`.
    """
    environment = {**os.environ, "HF_MODULES_CACHE": str(request / "modules"), "HF_HUB_OFFLINE": "1"}
    script, *arguments = (str(Path(path).resolve()) for path in (export_proof.__file__, folder, request))
    command = [sys.executable, "-I", script, *arguments]
    done = subprocess.run(command, cwd=request, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.strip().rpartition("\n")[2].strip() or "no message"
        raise ExportError(f"the export does not load without this project: {reason}")
    computed = load_file(request / export_proof.COMPUTED)
    for name in sorted(expected.keys() - {"logits"}):
        if not torch.equal(computed[name], expected[name]):
            raise ExportError(f"the exported processor computes another {name}")
    difference = (computed["logits"] - expected["logits"]).abs().max().item()
    allowed = TOLERANCE[dtype] * max(1.0, expected["logits"].abs().max().item())
    if not difference <= allowed:  # not: NaN counts as different
        raise ExportError(
            f"the export's logits differ by {difference:.1e} from the checkpoint's, {allowed:.1e} is allowed"
        )
    return difference


def _check_destination(out: Path, arguments: ExportArguments) -> None:
    checkpoint, target = Path(arguments.checkpoint).resolve(), out.resolve()
    if target == checkpoint or target in checkpoint.parents:
        raise ConfigError(f"out: {out} is or holds the checkpoint")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"out: {out} is a file")
    marks = {backbone.export_mark for backbone in BACKBONES.values()}
    is_export = any((out / mark).is_file() for mark in marks) and (out / "config.json").is_file()
    if out.is_dir() and any(out.iterdir()) and not is_export and not arguments.overwrite:
        raise ConfigError(f"out: {out} holds something that is no export; overwrite=true replaces it")


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a path in a temporary folder to write to; it takes the place of `out` if the block succeeds."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        staged, old = Path(temporary) / "export", Path(temporary) / "old"
        yield staged
        share_weights(staged)
        if out.exists():
            out.rename(old)
        try:
            staged.rename(out)
        finally:  # after an interruption too
            if old.exists() and not out.exists():
                old.rename(out)


def _read_evaluation(path: str) -> dict:
    """Read the evaluation that the card presents; ConfigError names the key and the file."""
    try:
        evaluation = read_evaluation(path)
    except ConfigError as error:
        raise ConfigError(f"evaluation: {error}") from None
    if "benchmarks" in evaluation["rows"][0]:
        raise ConfigError(
            f"evaluation: {path}: of public benchmarks, which the card cannot present: use one of eval_data"
        )
    return evaluation
