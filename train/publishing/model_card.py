"""Write the README.md and the `.eval_results/` of an export, as the Hub reads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from crop_model.configuration_crop_llava import CropLlavaConfig
from crop_model.processing_crop_llava import CropLlavaProcessor
from train.evaluation.report import FOOTNOTE, result_table

from .run_summary import RunFacts, TrainingSource

CARD = """---
{metadata}
---

# {title}

{intro} `trust_remote_code` runs the Python files of this folder; they need torch, transformers and Pillow.

## Use

```python
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

name = "{name}"
model = AutoModelForImageTextToText.from_pretrained(name, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
{adapter}
image = Image.open("image.png")
region = [40, 30, 120, 60]  # pixels x1, y1, x2, y2; or {{"cells": [1, 0, 3, 1]}}; or None
content = [{{"type": "image", "image": image, "region": region}}, {{"type": "text", "text": "What is written there?"}}]
inputs = processor.apply_chat_template(
    [{{"role": "user", "content": content}}],
    tokenize=True,
    return_dict=True,
    add_generation_prompt=True,
    processor_kwargs={{"return_tensors": "pt"}},
)
answer = model.generate(**inputs, max_new_tokens=32)[:, inputs["input_ids"].shape[1] :]
print(processor.batch_decode(answer, skip_special_tokens=True)[0])
```

## Regions and tokens

{picture}A region is where in the image the answer is to be seen. Three forms are taken:

- `[x1, y1, x2, y2]`: pixels of the image as passed, half-open: x2 - x1 is a width;
- `{{"cells": [xmin, ymin, xmax, ymax]}}`: inclusive cells, counted from 0, of an 8x8 grid over the image;
  `[0, 0, 7, 7]` is no region;
- None, or no `region` at all: no region is known, and the tokens are spread evenly.

The image becomes the model's square input as `{frame}`; {grid}.

Every image costs {token_budget} of {patches} visual tokens (1/{compression:.3g}), with or without a region, whatever it
shows: the length of a prompt is known before an image is read.
{training}{results}
## Limitations

- {region_limit}
- The budget was fixed in training; another one needs another training. Each further image costs its tokens again.
- It was measured on what the results name and on nothing else, and was examined neither for bias nor for safety. What
  the base model and the training data lack or get wrong, this model does too; their licences hold on.

## Citation

```bibtex
@inproceedings{{guo2025crop,
  title = {{{{CROP}}: Contextual Region-Oriented Visual Token Pruning}},
  author = {{Guo and Zhai and Jian and Wei and Zhou}},
  booktitle = {{Proceedings of the 2025 Conference on Empirical Methods in Natural Language Processing}},
  pages = {{9767--9783}},
  year = {{2025}}
}}
```
"""

INTRO = """A LLaVA model whose language model reads {token_budget} visual tokens for an image of {patches} patches: a
compressor (`{compressor_type}`) stands between vision tower and projector. It was trained for pre-LLM compression
(PLC), one stage of [CROP](https://arxiv.org/abs/2505.21233) (Guo et al., EMNLP 2025); the compressor is this project's
own design on the paper's idea."""

LOCALIZER_INTRO = """A LLaVA model that answers a question about an image with the region that matters to it,
`[xmin, ymin, xmax, ymax]` in inclusive cells of an 8x8 grid: the localizer of
[CROP](https://arxiv.org/abs/2505.21233) (Guo et al., EMNLP 2025). It was trained on all visual tokens and takes no
region; the project's `Localizer` lets it write such boxes and nothing else, with a confidence."""

ADAPTER_LINES = """
from peft import PeftModel  # the LoRA adapter was kept apart: without it this is not the fine-tuned model
model = PeftModel.from_pretrained(model, name, subfolder="adapter")
"""

TRAINING = """
## Training

From {base}, on:

| source | questions | how their regions were found (`global`: no region) | annotations are said to be under |
|---|---|---|---|
{sources}

What is said of licences may be wrong or out of date: check each at its source. With the project's `{module}`, and
`train_data` of your own folders:

```bash
{command} config.yaml
```

```yaml
# config.yaml: every key that is not at its default
{settings}```
{hardware}"""

REGION_IGNORED = "This compressor looks at no region: the answers are the same with any."
REGION_DECIDES = """The region decides what is kept in detail. What a wrong one or none costs is in the rows `random`
  and `global` of the results, where that was measured."""

PICTURE = "region.png"


def write_card(
    folder: Path,
    config: CropLlavaConfig,
    processor: CropLlavaProcessor,
    *,
    name: str,
    checkpoint: str,
    has_adapter: bool,
    run: RunFacts | None = None,
    evaluation: Mapping[str, Any] | None = None,
    base_model: str | None = None,
    model_license: str | None = None,
    datasets: Sequence[str] = (),
) -> None:
    """Write README.md, and `.eval_results/` if there is an evaluation of this very checkpoint.

    Args:
        folder: the export. If it holds `PICTURE`, the card shows it.
        config, processor: of the exported model.
        name: what the example loads: a Hub name or a folder's name.
        checkpoint: what was exported, as the evaluation calls it.
        has_adapter: whether the LoRA adapter lies beside the weights instead of in them.
        run: that trained it; None: not known.
        evaluation: what `train.evaluate` wrote.
        base_model, model_license, datasets: the Hub's metadata. Unknown ones are left out; the base model is then that
            of `run`.
    """
    base_model = base_model or (None if run is None else run.base_model)
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["crop", "visual-token-compression", "llava", "custom_code"],
        base_model=base_model,
        base_model_relation=None if base_model is None else "finetune",
        license=model_license,
        datasets=list(datasets) or None,
    )
    rows, cols = config.patch_grid
    intro = LOCALIZER_INTRO if run is not None and run.module == "train.localizer" else INTRO
    about = {"token_budget": config.token_budget, "patches": rows * cols, "compressor_type": config.compressor_type}
    text = CARD.format(
        metadata=metadata.to_yaml(),
        title=name.rsplit("/", maxsplit=1)[-1],
        name=name,
        intro=intro.format(**about),
        **about,
        compression=rows * cols / config.token_budget,
        adapter=ADAPTER_LINES if has_adapter else "",
        picture=f"![An image with its region, and what the tokens keep of it]({PICTURE})\n\n"
        if (folder / PICTURE).is_file()
        else "",
        frame=processor.frame,
        grid=_grid_sentence(processor.region_grid),
        region_limit=REGION_DECIDES if config.compressor_config.reads_region else REGION_IGNORED,
        training="" if run is None else _training_section(run, base_model),
        results="" if evaluation is None else _results_section(evaluation),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    if evaluation is not None:
        _write_results(folder / ".eval_results", checkpoint, evaluation)


def _grid_sentence(grid: tuple[int, int] | None) -> str:
    if grid is None:
        return "a region covers every patch that it touches"
    return f"there a region covers the cells of a grid of {grid[0]} x {grid[1]} that it touches"


def _training_section(run: RunFacts, base_model: str | None) -> str:
    processes = run.environment.get("processes", 1)
    launcher = f"deepspeed --num_gpus {processes} --module" if processes > 1 else "python -m"
    return TRAINING.format(
        base=f"[{base_model}](https://huggingface.co/{base_model})" if base_model else f"`{run.base_name}`",
        sources="\n".join(_source_row(source) for source in run.sources),
        module=run.module,
        command=f"{launcher} {run.module}",
        settings=yaml.safe_dump({"model": base_model or run.base_name, **run.settings}, sort_keys=False),
        hardware=_hardware_line(run),
    )


def _source_row(source: TrainingSource) -> str:
    methods = ", ".join(f"{method} {count:,}" for method, count in sorted(source.methods.items())) or "none"
    questions = "" if source.questions is None else f"{source.questions:,}"
    return f"| {source.name} | {questions} | {methods} | {source.licence} |"


def _hardware_line(run: RunFacts) -> str:
    """Name the hardware and the duration; empty if the run recorded none."""
    found = run.environment
    if not found:
        return ""
    lasted = "" if run.seconds is None else f", {run.steps:,} steps in {run.seconds:,.0f} s"
    return (
        f"\n{found['processes']} processes on {found['device']}, {found['cpu_count']} CPU cores, {found['dtype']}"
        f"{lasted}; torch {found['torch']}, transformers {found['transformers']}.\n"
    )


def _results_section(evaluation: Mapping[str, Any]) -> str:
    table = result_table(evaluation["rows"])
    return f"\n## Results\n\n{evaluation['dataset']}, {evaluation['n']} questions.\n\n{table}\n\n{FOOTNOTE}\n"


def _write_results(folder: Path, checkpoint: str, evaluation: Mapping[str, Any]) -> None:
    """Write one file for each of the evaluation's rows that is of this checkpoint."""
    for row in evaluation["rows"]:
        if Path(row["checkpoint"]) != Path(checkpoint):
            continue
        name = f"{row['method']}-{row['token_budget']}-{row['region_source']}-{row['seed']}"
        low, high = row["accuracy_ci95"]
        entry = EvalResultEntry(
            dataset_id=evaluation["dataset"],
            task_id="default",
            value=row["accuracy"],
            notes=f"exact match, 95 % interval {low:.4f}-{high:.4f}; {row['method']}, {row['token_budget']} visual "
            f"tokens, {row['region_source']} regions, seed {row['seed']}",
        )
        folder.mkdir(exist_ok=True)
        text = yaml.safe_dump(eval_result_entries_to_yaml([entry]), sort_keys=False, width=1000)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
