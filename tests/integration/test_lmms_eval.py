"""lmms-eval itself asks the demo's base the questions of a local task: its answers are those of `train.evaluate`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from data_prep.demo import main as make_demo
from data_prep.schema.sample import read_regions
from train.backbones.checkpoint import Checkpoint
from train.evaluate import main as evaluate

ROOT = Path(__file__).parents[2]
CHECKPOINT = "configs/demo_base"
COMPRESSOR = {"compressor_type": "region_ratio", "token_budget": 28}
MAX_NEW_TOKENS = 4
pytestmark = pytest.mark.integration

SHARED = """
dataset_path: json
dataset_kwargs: {data_files: {test: DOCS}}
test_split: test
doc_to_visual: !function utils.images
doc_to_text: question
"""
TASKS = {
    "demo_answers": f"""
include: shared
task: demo_answers
output_type: generate_until
doc_to_target: answer
generation_kwargs: {{max_new_tokens: {MAX_NEW_TOKENS}, temperature: 0, do_sample: false}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
""",
    "demo_choices": """
include: shared
task: demo_choices
output_type: multiple_choice
doc_to_choice: choices
doc_to_target: likeliest
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
}
UTILS = """
from PIL import Image


def images(doc):
    return [Image.open(doc["image"])]
"""


def own_evaluation(data: Path, out: Path) -> tuple[list[dict], list[dict]]:
    """This project's predictions with the annotated regions and without any."""
    source = {
        "annotations": str(data / "test.json"),
        "image_root": str(data / "images"),
        "regions": str(data / "regions" / "test"),
    }
    row = {"checkpoint": str(ROOT / CHECKPOINT), **COMPRESSOR, "region_source": ["oracle", "global"]}
    words = [f"rows=[{json.dumps(row)}]", f"eval_data=[{json.dumps(source)}]", "ttft_samples=0", f"output_dir={out}"]
    evaluate([*words, f"max_new_tokens={MAX_NEW_TOKENS}"])
    oracle, nowhere = (
        [json.loads(line) for line in file.read_text().splitlines()] for file in sorted(out.glob("predictions-*.jsonl"))
    )
    return oracle, nowhere


@torch.no_grad()
def likeliest(docs: list[dict]) -> list[int]:
    """Which choice has the greatest probability, one question and one choice at a time."""
    checkpoint = Checkpoint.open(ROOT / CHECKPOINT, **COMPRESSOR)
    model, processor = checkpoint.model(), checkpoint.processor()
    found = []
    for doc in docs:
        content = [{"type": "image", "image": Image.open(doc["image"])}, {"type": "text", "text": doc["question"]}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            processor_kwargs={"regions": [doc["region"]], "return_tensors": "pt"},
        )
        log_chances = model(**inputs).logits[0, -1].log_softmax(dim=0)
        answers = [processor.tokenizer(choice, add_special_tokens=False)["input_ids"] for choice in doc["choices"]]
        assert all(len(ids) == 1 for ids in answers)
        found.append(int(log_chances[[token for (token,) in answers]].argmax()))
    return found


def write_tasks(folder: Path, docs: list[dict]) -> None:
    folder.mkdir()
    (folder / "docs.json").write_text("\n".join(json.dumps(doc) for doc in docs))
    (folder / "utils.py").write_text(UTILS)
    (folder / "shared").write_text(SHARED.replace("DOCS", str(folder / "docs.json")))
    for name, text in TASKS.items():
        (folder / f"{name}.yaml").write_text(text)


def run_lmms_eval(tasks: Path, out: Path) -> tuple[list[str], dict[str, dict]]:
    """The answers that lmms-eval logs of `demo_answers`, in the order of the docs, and its results by task."""
    given = {"pretrained": CHECKPOINT, **COMPRESSOR, "region_key": "region"}
    command = [sys.executable, "-m", "lmms_eval", "--model", "crop_llava", "--batch_size", "5", "--log_samples"]
    command += ["--model_args", ",".join(f"{key}={value}" for key, value in given.items())]
    command += ["--tasks", ",".join(TASKS), "--include_path", str(tasks), "--output_path", str(out)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    samples, results = list(out.rglob("*_samples_demo_answers.jsonl")), list(out.rglob("*_results.json"))
    # its exit status is 0 whatever goes wrong while it evaluates
    assert (done.returncode, len(samples), len(results)) == (0, 1, 1), done.stderr + done.stdout
    logged = sorted(map(json.loads, samples[0].read_text().splitlines()), key=lambda line: line["doc_id"])
    return [line["filtered_resps"] for line in logged], json.loads(results[0].read_text())["results"]


def test_lmms_eval_gets_the_answers_of_the_evaluation(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_demo([str(data), "train_images=1", "test_images=4"])
    oracle, nowhere = own_evaluation(data, tmp_path / "own")
    annotations = read_regions(data / "regions" / "test")
    choices = sorted({line["target"] for line in oracle})[:6]
    docs = [
        {
            "image": str(data / "images" / annotations[line["sample_id"]].image),
            "question": line["question"],
            "answer": line["target"],
            "region": annotations[line["sample_id"]].region,
            "choices": choices,
        }
        for line in oracle
    ]
    best = likeliest(docs)
    assert len(set(best)) > 1
    write_tasks(tmp_path / "tasks", [{**doc, "likeliest": choice} for doc, choice in zip(docs, best, strict=True)])
    answers, results = run_lmms_eval(tmp_path / "tasks", tmp_path / "lmms_eval")
    assert answers == [line["answer"] for line in oracle]
    assert answers != [line["answer"] for line in nowhere]  # the regions arrive
    right = sum(line["correct"] for line in oracle) / len(oracle)
    assert 0.5 < right < 1
    assert results["demo_answers"]["exact_match,none"] == pytest.approx(right)
    assert results["demo_choices"]["acc,none"] == 1
