"""The README.md and the `.eval_results/` of an export, as the Hub reads them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from crop_model.configuration_crop_llava import CropLlavaConfig

from .evaluation_report import FOOTNOTE, markdown_table

CARD = """---
{metadata}
---

# {title}

A LLaVA model whose language model reads {token_budget} visual tokens for an image of {patches} patches: a compressor
(`{compressor_type}`) stands between vision tower and projector. It was trained for pre-LLM compression (PLC), one stage
of CROP (Guo et al., "CROP: Contextual Region-Oriented Visual Token Pruning", EMNLP 2025); the compressor is this
project's own design on the paper's idea.

## Use

```python
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

name = "{name}"
model = AutoModelForImageTextToText.from_pretrained(name, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
{adapter}
image = {{"type": "image", "image": Image.open("image.png")}}
messages = [{{"role": "user", "content": [image, {{"type": "text", "text": "What is written there?"}}]}}]
region = [40, 30, 120, 60]  # pixels x1, y1, x2, y2 of the image; None: no region known
inputs = processor.apply_chat_template(
    messages, tokenize=True, return_dict=True, add_generation_prompt=True,
    processor_kwargs={{"regions": [region], "return_tensors": "pt"}},
)
answer = model.generate(**inputs, max_new_tokens=32)[:, inputs["input_ids"].shape[1]:]
print(processor.batch_decode(answer, skip_special_tokens=True)[0])
```
{results}"""

ADAPTER_LINES = """
from peft import PeftModel  # the LoRA adapter was kept apart: without it this is not the fine-tuned model
model = PeftModel.from_pretrained(model, f"{name}/adapter")
"""


def write_card(
    folder: Path,
    config: CropLlavaConfig,
    *,
    name: str,
    checkpoint: str,
    has_adapter: bool,
    evaluation: Mapping[str, Any] | None = None,
    base_model: str | None = None,
    model_license: str | None = None,
    datasets: Sequence[str] = (),
) -> None:
    """Write README.md, and `.eval_results/` where there is an evaluation of this very checkpoint.

    Args:
        folder: the export.
        config: of the exported model.
        name: what the example loads: a Hub name or a folder's name.
        checkpoint: what was exported, as the evaluation calls it.
        has_adapter: whether the LoRA adapter lies beside the weights instead of in them.
        evaluation: what `train.evaluate` wrote.
        base_model, model_license, datasets: the Hub's metadata; left out where not known.
    """
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        tags=["crop", "visual-token-compression", "llava", "custom_code"],
        base_model=base_model,
        license=model_license,
        datasets=list(datasets) or None,
    )
    rows, cols = config.patch_grid
    text = CARD.format(
        metadata=metadata.to_yaml(),
        title=name.rsplit("/", maxsplit=1)[-1],
        name=name,
        token_budget=config.token_budget,
        patches=rows * cols,
        compressor_type=config.compressor_type,
        adapter=ADAPTER_LINES if has_adapter else "",
        results="" if evaluation is None else _results_section(evaluation),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
    if evaluation is not None:
        _write_results(folder / ".eval_results", checkpoint, evaluation)


def read_evaluation(path: str | Path) -> dict[str, Any]:
    """What `train.evaluate` wrote. ValueError names the file where it is something else."""
    try:
        evaluation = json.loads(Path(path).read_text(encoding="utf-8"))
        markdown_table(evaluation["rows"])
        if "benchmarks" in evaluation["rows"][0]:
            raise ValueError(f"{path}: of public benchmarks, which the card cannot present; give one of eval_data")
    except (OSError, json.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path}: not an evaluation.json of train.evaluate: {error!r}") from None
    return evaluation


def _results_section(evaluation: Mapping[str, Any]) -> str:
    table = markdown_table(evaluation["rows"])
    return f"\n## Results\n\n{evaluation['dataset']}, {evaluation['n']} questions.\n\n{table}\n\n{FOOTNOTE}\n"


def _write_results(folder: Path, checkpoint: str, evaluation: Mapping[str, Any]) -> None:
    """One file for each of the evaluation's rows that is of this checkpoint."""
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
