"""The table of an evaluation against questions asked one by one, and what a wrong call says."""

import gc
import json
import re
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image

from crop_model.localization.base import LocatedRegion, ModelLocalizer
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from data_prep.schema.sample import RegionAnnotation, sample_id, write_regions
from train.backbones.checkpoint import Checkpoint
from train.evaluate import main
from train.evaluation import evaluator as evaluate
from train.evaluation import loaded_models
from train.evaluation.arguments import RowGroup, RowSpec
from train.evaluation.prediction import Prediction
from train.evaluation.report import add_relative_accuracy, describe_row, result_table, write_report
from train.evaluation.vision_reuse import each_image_once

QUESTIONS = (
    "what is the digit ?",
    "how many red ?",
    "what is the colour of the square here , and what shape is there ?",
)
BOXES = ((0.0, 0.0, 12.0, 12.0), None, (20.0, 10.0, 60.0, 40.0))
CONTRACT_KEYS = {
    "method", "trained", "token_budget", "visual_tokens", "retention_ratio", "region_source", "accuracy",
    "accuracy_ci95", "relative_accuracy", "by_type", "macs", "flops", "kv_bytes", "ttft_s", "seed",
}  # fmt: skip
MAX_NEW_TOKENS = 3
Method = Callable[[CropLlavaForConditionalGeneration], AbstractContextManager[None]]


def write_data(folder: Path, answers: Sequence[str]) -> str:
    """Three questions on each of four images, with `answers` in turn; returns the word `eval_data=...`."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    records, annotations = [], []
    for number in range(4):
        name, size = f"{number}.png", (64, 48)
        noise = torch.randint(0, 256, (48, 64, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        Image.fromarray(noise.numpy()).save(folder / "images" / name)
        turns = []
        for turn, (question, box) in enumerate(zip(QUESTIONS, BOXES, strict=True)):
            tag = "<image>\n" if turn == 0 else ""
            turns.append({"from": "human", "value": tag + question, "type": ("digit", "count", "colour")[turn]})
            turns.append({"from": "gpt", "value": answers[(3 * number + turn) % len(answers)]})
            key = sample_id("shared", name, turn, question)
            boxes = [] if box is None else [box]
            annotations.append(RegionAnnotation(key, "shared", name, turn, question, *size, boxes, box, "human"))
        records.append({"id": number, "image": name, "conversations": turns})
    (folder / "data.json").write_text(json.dumps(records))
    write_regions(folder / "regions", annotations, {})
    files = {"annotations": folder / "data.json", "image_root": folder / "images", "regions": folder / "regions"}
    return f"eval_data=[{json.dumps({key: str(path) for key, path in files.items()})}]"


@pytest.fixture
def crop_llava(tiny_crop_llava: Path, tmp_path: Path) -> Path:
    """`tiny_crop_llava`, but for the placeholder of an image, which it never says: an image would have to follow."""
    checkpoint = Checkpoint.open(tiny_crop_llava)
    model, processor = checkpoint.model(), checkpoint.processor()
    with torch.no_grad():
        model.lm_head.weight[processor.image_token_id] = 0
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def run(out: Path, rows: list[dict], *words: str) -> dict:
    """Evaluate `rows` and return evaluation.json."""
    main(
        [
            f"rows={json.dumps(rows)}",
            f"output_dir={out}",
            f"max_new_tokens={MAX_NEW_TOKENS}",
            "ttft_samples=1",
            "batch_size=5",
            *words,
        ]
    )
    return json.loads((out / "evaluation.json").read_text())


def read_predictions(out: Path, row: int) -> list[dict]:
    (path,) = out.glob(f"predictions-{row:02d}-*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


@torch.no_grad()
def answers_one_by_one(
    checkpoint: Path, folder: Path, with_regions: bool, method: Method = lambda model: nullcontext(), **keys: object
) -> list[str]:
    """No batches, no cache, no shared images, no collator: the processor, and the most likely token again and again."""
    opened = Checkpoint.open(checkpoint, **keys)
    model, processor = opened.model(), opened.processor()
    answers = []
    for number in range(4):
        image = Image.open(folder / "images" / f"{number}.png")
        for question, box in zip(QUESTIONS, BOXES, strict=True):
            text = f"USER: <image>\n{question} ASSISTANT:"
            region = box if with_regions else None
            inputs = processor(images=[image], text=[text], regions=[region], return_tensors="pt")
            ids = inputs.pop("input_ids")
            start = ids.shape[1]
            while ids.shape[1] < start + MAX_NEW_TOKENS and ids[0, -1] != processor.tokenizer.eos_token_id:
                inputs["attention_mask"] = torch.ones_like(ids)
                with method(model):
                    logits = model(input_ids=ids, **inputs).logits
                ids = torch.cat([ids, logits[:, -1:].argmax(dim=-1)], dim=1)
            answers.append(processor.decode(ids[0, start:], skip_special_tokens=True).strip())
    return answers


@pytest.mark.parametrize("source", ["oracle", "global"])
def test_answers_equal_those_of_questions_asked_one_by_one(crop_llava: Path, tmp_path: Path, source: str) -> None:
    data = write_data(tmp_path, ["7"])
    run(tmp_path / "out", [{"checkpoint": str(crop_llava), "region_source": source}], data)
    predictions = read_predictions(tmp_path / "out", 0)
    assert [prediction["index"] for prediction in predictions] == list(range(12))
    expected = answers_one_by_one(crop_llava, tmp_path, with_regions=source == "oracle")
    assert [prediction["answer"] for prediction in predictions] == expected
    assert len(set(expected)) > 1


def test_accuracy_counts_the_right_answers(tiny_crop_llava: Path, tmp_path: Path) -> None:
    rows = [{"checkpoint": str(tiny_crop_llava)}]
    run(tmp_path / "first", rows, write_data(tmp_path, ["7"]))
    answers = [prediction["answer"] for prediction in read_predictions(tmp_path / "first", 0)]
    targets = [answer.upper() + "." if number < 5 else "something else" for number, answer in enumerate(answers)]
    (row,) = run(tmp_path / "second", rows, write_data(tmp_path, targets))["rows"]
    assert row["accuracy"] == 5 / 12
    low, high = row["accuracy_ci95"]
    assert low < 5 / 12 < high
    assert row["by_type"]["digit"] == {"n": 4, "accuracy": 0.5}
    assert row["by_type"]["no region"] == {"n": 4, "accuracy": row["by_type"]["count"]["accuracy"]}


def test_the_files_and_the_schema(
    tiny_llava: Path, tiny_crop_llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    trained = {"checkpoint": str(tiny_crop_llava), "region_source": ["oracle", "random"]}
    every_token = {"checkpoint": [str(tiny_llava), str(tiny_crop_llava)], "compressor_type": "none"}
    rows = [every_token, trained]
    out = tmp_path / "out"
    (tmp_path / "out").mkdir()
    (out / "predictions-09-stale.jsonl").touch()
    result = run(out, rows, write_data(tmp_path, ["7"]), "dataset=toy")
    assert result["dataset"] == "toy" and result["n"] == 12 and result["rows_left"] == 0
    assert all(set(row) >= CONTRACT_KEYS for row in result["rows"])
    assert [(row["method"], row["trained"], row["region_source"]) for row in result["rows"]] == [
        ("none", False, "oracle"),
        ("none", True, "oracle"),
        ("region_ratio", True, "oracle"),
        ("region_ratio", True, "random"),
    ]
    full, full_trained, compressed, _ = result["rows"]
    for row in (full, full_trained):
        assert (row["visual_tokens"], row["token_budget"], row["retention_ratio"]) == (64, 64, 1)
    assert (compressed["visual_tokens"], compressed["token_budget"], compressed["retention_ratio"]) == (16, 16, 0.25)
    assert compressed["flops"] == 2 * compressed["macs"] < full["flops"]
    assert compressed["kv_bytes"] < full["kv_bytes"]
    assert compressed["ttft_s"] > 0
    assert result["environment"]["torch"] == torch.__version__
    assert sorted(path.name for path in out.iterdir()) == [
        "answers",
        "evaluation.json",
        "evaluation.md",
        "evaluation.yaml",
        "predictions-00-none-64-oracle.jsonl",
        "predictions-01-none-64-oracle.jsonl",
        "predictions-02-region_ratio-16-oracle.jsonl",
        "predictions-03-region_ratio-16-random.jsonl",
    ]
    table = result_table(result["rows"])
    assert table in (out / "evaluation.md").read_text() and capsys.readouterr().out.count(table) == 1
    assert yaml.safe_load((out / "evaluation.yaml").read_text())["rows"][1]["region_source"] == ["oracle", "random"]


def test_the_report_holds_what_was_measured_before_an_interruption(
    tiny_llava: Path, tiny_crop_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = []

    def stop_at_the_third(spec: RowSpec, *others: object) -> object:
        specs.append(spec)
        if len(specs) == 3:
            raise KeyboardInterrupt
        return evaluate_row(spec, *others)

    evaluate_row = evaluate.evaluate_row
    monkeypatch.setattr(evaluate, "evaluate_row", stop_at_the_third)
    rows = [{"checkpoint": str(tiny_crop_llava)}, {"checkpoint": str(tiny_llava), "compressor_type": "none"}]
    with pytest.raises(SystemExit, match="130"):
        run(tmp_path, [*rows, rows[1], rows[1]], write_data(tmp_path / "data", ["7"]))
    result = json.loads((tmp_path / "evaluation.json").read_text())
    assert [row["method"] for row in result["rows"]] == ["region_ratio", "none"] and result["rows_left"] == 2
    assert "(2 rows still to come)" in (tmp_path / "evaluation.md").read_text()


def test_models_and_localizers_are_loaded_once_and_freed_before_the_next(
    tiny_llava: Path, tiny_crop_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of one model follow each other, whatever their order in the table, which stays."""
    loads: list[tuple[str, int]] = []
    answering: list[weakref.ref] = []

    def count(self: Checkpoint, *options: object) -> object:
        gc.disable()  # the evaluation itself has to free them
        loads.append((Path(self.name).name, self.config.token_budget))
        is_localizer = self.name == str(tiny_llava)
        assert is_localizer or not any(earlier() for earlier in answering)
        model = merged(self, *options)
        if not is_localizer:
            answering.append(weakref.ref(model))
        return model

    merged = Checkpoint.merged
    monkeypatch.setattr(Checkpoint, "merged", count)
    monkeypatch.setattr("crop_model.localization.generated.Localizer.predict", the_corner)
    by_localizer = {"region_source": "localizer", "localizer": str(tiny_llava)}
    small = {"checkpoint": str(tiny_crop_llava), "token_budget": 8}
    rows = [
        {"checkpoint": str(tiny_crop_llava), **by_localizer},
        small,
        {"checkpoint": str(tiny_crop_llava), "region_source": "global"},
        {**small, **by_localizer},
        small,
    ]
    try:
        result = run(tmp_path / "out", rows, write_data(tmp_path / "data", ["7"]))
    finally:
        gc.enable()
    plain = Checkpoint.open(tiny_llava).config.token_budget
    assert loads == [("crop", 16), (tiny_llava.name, plain), ("crop", 8)]
    written = [(row["token_budget"], row["region_source"]) for row in result["rows"]]
    assert written == [(16, "localizer"), (8, "oracle"), (16, "global"), (8, "localizer"), (8, "oracle")]
    assert read_predictions(tmp_path / "out", 1) == read_predictions(tmp_path / "out", 4)


class Recorder(ModelLocalizer):
    """A localizer that knows where it is and localizes only on the device."""

    device = "device"

    def __init__(self) -> None:
        self.itself = self  # as a model may

    def to(self, device: str) -> "Recorder":
        self.device = device
        return self

    def predict(self, images: list, questions: list[str], batch_size: int = 8) -> list[LocatedRegion]:
        assert self.device == "device"
        return the_corner(self, images, questions)


@pytest.fixture(params=[True, False])
def recorders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref]:
    """Localizers loaded so far, on the first process or on another."""
    loaded: list[weakref.ref] = []

    def load(*_: object) -> Recorder:
        recorder = Recorder()
        loaded.append(weakref.ref(recorder))
        return recorder

    state = SimpleNamespace(device="device", is_main_process=request.param)
    monkeypatch.setattr("train.evaluation.loaded_models.PartialState", lambda: state)
    monkeypatch.setattr("train.evaluation.loaded_models.load_localizer", load)
    monkeypatch.setattr("train.evaluation.evaluator.localizer_cost", lambda *_: {})
    merged = Checkpoint.merged
    monkeypatch.setattr(Checkpoint, "merged", lambda self, dtype, device: merged(self, dtype))
    return loaded


def test_while_questions_are_answered_the_localizer_is_off_the_device(
    tiny_llava: Path,
    tiny_crop_llava: Path,
    tmp_path: Path,
    recorders: list[weakref.ref],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first process has it on the CPU, another one no more."""
    seen: list[str | None] = []

    def look(self: evaluate.Evaluator, indices: Sequence[int]) -> list[Prediction]:
        localizer = recorders[-1]()
        seen.append(localizer and localizer.device)
        return answer(self, indices)

    answer = evaluate.Evaluator._answer
    monkeypatch.setattr(evaluate.Evaluator, "_answer", look)
    by_localizer = {"region_source": "localizer", "localizer": str(tiny_llava)}
    rows = [{"checkpoint": str(tiny_crop_llava), **by_localizer, "token_budget": budget} for budget in (16, 8)]
    is_first = loaded_models.PartialState().is_main_process
    gc.disable()
    try:
        run(tmp_path / "out", rows, write_data(tmp_path / "data", ["7"]))
    finally:
        gc.enable()
    assert set(seen) == {"cpu" if is_first else None}
    assert len(recorders) == 1 or not is_first  # the only one that measures


def the_corner(self: object, images: list, questions: list[str], batch_size: int = 8) -> list[LocatedRegion]:
    return [LocatedRegion((0.0, 0.0, 9.0, 9.0), (0, 0, 1, 1), 1.0) for _ in questions]


def test_a_report_written_twice_is_the_same_and_needs_no_images(tiny_crop_llava: Path, tmp_path: Path) -> None:
    text_alone = Prediction(0, "id", None, "q", "t", "a", True, None, 0, images=0, visual_tokens=0, text_tokens=9)
    row = describe_row(
        RowSpec(str(tiny_crop_llava)), Checkpoint.open(tiny_crop_llava), [text_alone], None, torch.float32
    )
    assert row["retention_ratio"] == 0
    write_report(tmp_path, "toy", 1, [row], "float32")
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_report(tmp_path, "toy", 1, [row], "float32")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert sorted(files) == ["evaluation.json", "evaluation.md"]


def test_random_regions_are_elsewhere_and_follow_the_seed(tiny_crop_llava: Path, tmp_path: Path) -> None:
    rows = [{"checkpoint": str(tiny_crop_llava), "region_source": "random", "seed": [0, 1, 0]}]
    run(tmp_path / "out", rows, write_data(tmp_path, ["7"]))
    first, second, again = (read_predictions(tmp_path / "out", row) for row in range(3))
    assert first == again
    for index, prediction in enumerate(first):
        box, drawn = BOXES[index % 3], prediction["region"]
        if box is None:
            assert drawn is None
            continue
        assert drawn != second[index]["region"]
        assert (drawn[2] - drawn[0], drawn[3] - drawn[1]) == pytest.approx((box[2] - box[0], box[3] - box[1]))
        assert abs(drawn[0] - box[0]) + abs(drawn[1] - box[1]) > 0


def test_an_image_that_follows_itself_passes_the_tower_once(tiny_crop_llava: Path) -> None:
    model = Checkpoint.open(tiny_crop_llava).model()
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    batch = images[[0, 0, 1, 2, 2, 2, 0]]
    seen: list[int] = []
    embeddings = model.model.vision_tower.embeddings
    with torch.no_grad(), embeddings.register_forward_hook(lambda _, inputs, output: seen.append(len(output))):
        expected = torch.stack(model.get_image_features(batch).pooler_output)
        with each_image_once(model.model.vision_tower):
            shared = torch.stack(model.get_image_features(batch).pooler_output)
        after = torch.stack(model.get_image_features(batch).pooler_output)
    assert seen == [7, 4, 7]
    torch.testing.assert_close(shared, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(after, expected)


def prediction(correct: bool, patches: int, kind: str | None = None) -> Prediction:
    return Prediction(0, "id", kind, "q", "t", "a", correct, None, patches, images=1, visual_tokens=16, text_tokens=9)


def test_region_sizes_are_told_apart_by_the_budget(tiny_crop_llava: Path) -> None:
    predictions = [prediction(True, 0), prediction(False, 16, "place"), prediction(True, 16), prediction(True, 17)]
    row = describe_row(
        RowSpec(str(tiny_crop_llava)), Checkpoint.open(tiny_crop_llava), predictions, None, torch.float32
    )
    assert row["by_type"] == {
        "no region": {"n": 1, "accuracy": 1.0},
        "place": {"n": 1, "accuracy": 0.0},
        "region exceeds budget": {"n": 1, "accuracy": 1.0},
        "region fits budget": {"n": 2, "accuracy": 0.5},
    }


def test_relative_accuracy_is_over_the_base_on_all_tokens() -> None:
    def row(method: str, trained: bool, accuracy: float) -> dict:
        return {"method": method, "trained": trained, "accuracy": accuracy}

    rows = [row("none", True, 0.5), row("region_ratio", True, 0.6), row("none", False, 0.8)]
    add_relative_accuracy(rows)
    assert [entry["relative_accuracy"] for entry in rows] == pytest.approx([0.625, 0.75, 1.0])
    alone = [row("uniform", True, 0.6)]
    add_relative_accuracy(alone)
    assert alone[0]["relative_accuracy"] is None


def test_lists_in_a_row_stand_for_every_combination() -> None:
    group = RowGroup("c", token_budget=[8, 16], region_source=["oracle", "random"])
    assert [(spec.token_budget, spec.region_source) for spec in group.specs()] == [
        (8, "oracle"),
        (8, "random"),
        (16, "oracle"),
        (16, "random"),
    ]


WRONG_CALLS = {
    "unknown key": (["batchsize=3"], "command line: unknown key 'batchsize' \\(did you mean 'batch_size'"),
    "wrong type": (["batch_size=many"], "batch_size: expected a whole number, got 'many'"),
    "batch of none": (["batch_size=0"], "batch_size: must be at least 1"),
    "no rows": (["rows=[]"], "rows: nothing to evaluate"),
    "no checkpoint": (["rows=[{token_budget: 16}]"], "rows.0.checkpoint: is required"),
    "unknown key in a row": (
        ["rows=[{checkpoint: c, budget: 16}]"],
        "rows.0.budget: unknown key \\(did you mean 'token_budget'",
    ),
    "unknown region source": (
        ["rows=[{checkpoint: c, region_source: elsewhere}]"],
        "region_source: 'elsewhere' is none",
    ),
    "unknown compressor": (
        ["rows=[{checkpoint: c, compressor_type: best}]"],
        "compressor_type: 'best' is none of none, ",
    ),
    "unknown method": (["rows=[{checkpoint: c, method: magic}]"], "method: 'magic' is none of ilp, "),
    "pruning without a budget": (["rows=[{checkpoint: c, method: ilp}]"], "pruned_tokens: it goes with"),
    "a method blind to regions": (
        ["rows=[{checkpoint: c, method: divprune}]"],
        "region_source: divprune looks at no region",
    ),
    "two compressors": (
        ["rows=[{checkpoint: c, method: visionzip, compressor_type: uniform, region_source: global}]"],
        "compressor_type: visionzip takes the place",
    ),
    "layer the model lacks": (["rows=[{checkpoint: TINY, method: ilp, pruned_tokens: 5, layer: 9}]"], "layer: 9 is"),
    "mean below the first layers": (
        ["rows=[{checkpoint: TINY, method: ilp, pruned_tokens: 5, layer: 1, convention: mean}]"],
        "mean_tokens: 5 of 64",
    ),
    "budget not a number": (["rows=[{checkpoint: c, token_budget: few}]"], "token_budget: expected a whole number"),
    "missing checkpoint": (["rows=[{checkpoint: gone/to/nowhere}]"], "model gone/to/nowhere: "),
    "budget above the patches": (["rows=[{checkpoint: TINY, token_budget: 65}]"], "token_budget: 65 is outside 2..64"),
    "no data": (["eval_data=[]"], "eval_data: no questions"),
    "missing annotations": (["eval_data=[{annotations: gone.json}]"], "annotations: no such file .*gone.json"),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_wrong_calls(
    case: str, tiny_llava: Path, tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_no_model(*args: object, **kwargs: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(CropLlavaForConditionalGeneration, "from_pretrained", load_no_model)
    words, message = WRONG_CALLS[case]
    rows = f"rows=[{{checkpoint: {tiny_llava}}}]"
    with pytest.raises(SystemExit) as caught:
        main([rows, write_data(tmp_path, ["7"]), *[word.replace("TINY", str(tiny_llava)) for word in words]])
    assert caught.value.code == 2
    (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("python -m train.evaluate: error: ")]
    assert re.search(message, line), line


ROWS = [{"compressor_type": ["region_ratio", "uniform"], "token_budget": 9, "region_source": "oracle"}]


def stop_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let an evaluation break off as it answers the next batch; returns the sizes of the answered ones."""
    answer, sizes = evaluate.Evaluator._answer, []

    def counted(self: evaluate.Evaluator, indices: Sequence[int]) -> list[Prediction]:
        if len(sizes) == batches:
            raise KeyboardInterrupt
        sizes.append(len(indices))
        return answer(self, indices)

    monkeypatch.setattr(evaluate.Evaluator, "_answer", counted)
    return sizes


def cut_off_last_line(out: Path) -> None:
    """As a kill leaves a line that is being written."""
    newest = max(out.glob("answers/*/*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-20])


def test_a_stopped_evaluation_goes_on(crop_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve questions make three batches a row: it stops in the second row, the last line cut off."""
    rows = [row | {"checkpoint": str(crop_llava)} for row in ROWS]
    data = write_data(tmp_path / "data", ["red"])
    undisturbed = run(tmp_path / "one", rows, data)
    with monkeypatch.context() as patched:
        stop_after(5, patched)
        with pytest.raises(SystemExit):
            run(tmp_path / "two", rows, data)
    cut_off_last_line(tmp_path / "two")
    sizes = stop_after(100, monkeypatch)
    resumed = run(tmp_path / "two", rows, data, "resume=true")
    assert len(sizes) == 2  # the batch that was cut off, and the one that had not begun
    for row in range(2):
        assert read_predictions(tmp_path / "two", row) == read_predictions(tmp_path / "one", row)
        assert resumed["rows"][row]["accuracy"] == undisturbed["rows"][row]["accuracy"]
    sizes.clear()
    run(tmp_path / "two", rows, data, "resume=true")
    assert sizes == []  # a finished one has nothing left to ask


@pytest.mark.parametrize("change", ["nothing", "not asked to", "questions", "checkpoint", "dtype"])
def test_answers_to_something_else_are_not_taken_over(
    change: str, crop_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [ROWS[0] | {"checkpoint": str(crop_llava), "compressor_type": "uniform"}]
    with monkeypatch.context() as patched:
        stop_after(2, patched)
        with pytest.raises(SystemExit):
            run(tmp_path / "out", rows, write_data(tmp_path / "data", ["red"]))
    if change == "checkpoint":
        (crop_llava / "config.json").touch()
    data = write_data(tmp_path / "data", ["blue" if change == "questions" else "red"])
    words = [] if change == "not asked to" else ["resume=true"]
    sizes = stop_after(100, monkeypatch)
    run(tmp_path / "out", rows, data, *words, *(["dtype=bfloat16"] if change == "dtype" else []))
    assert len(sizes) == (1 if change == "nothing" else 3)
