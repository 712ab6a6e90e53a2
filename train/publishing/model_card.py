"""Write the README.md and the `.eval_results/` of an export, as the Hub reads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from huggingface_hub import EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from train.evaluation.report import FOOTNOTE, result_table

from .run_summary import RunFacts

TEMPLATE = Path(__file__).with_name("model_card.md.jinja")
PICTURE = "region.png"


def write_card(
    folder: Path,
    config: Any,
    processor: Any,
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
        run: the run that trained it; None: not known.
        evaluation: what `train.evaluate` wrote.
        base_model, model_license, datasets: the Hub's metadata, without what is unknown; `run` may know the base model.
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
    settings = {} if run is None else {"model": base_model or run.base_name, **run.settings}
    template = jinja2.Template(
        TEMPLATE.read_text(encoding="utf-8"), trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    text = template.render(
        metadata=metadata.to_yaml(),
        name=name,
        config=config,
        patches=config.patch_grid[0] * config.patch_grid[1],
        processor=processor,
        has_adapter=has_adapter,
        picture=PICTURE if (folder / PICTURE).is_file() else None,
        run=run,
        base_model=base_model,
        settings=yaml.safe_dump(settings, sort_keys=False),
        evaluation=evaluation,
        table=None if evaluation is None else result_table(evaluation["rows"]),
        footnote=FOOTNOTE,
    )
    (folder / "README.md").write_text(f"{text}\n", encoding="utf-8")
    if evaluation is not None:
        _write_results(folder / ".eval_results", checkpoint, evaluation)


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
