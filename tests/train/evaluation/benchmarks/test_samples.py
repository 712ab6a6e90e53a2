"""Questions of a benchmark as rows of the evaluation: their columns, their lengths, their regions, and the collator."""

import json
from pathlib import Path

import datasets
import pytest

from crop_model.processing_crop_llava import CropLlavaProcessor
from data_prep.common.errors import DataError
from tests.train.evaluation.benchmarks.official import HEIGHT, PUBLISHED, WIDTH, ten, visual_cot_record
from train.data.collator import Collator
from train.data.rows import FEATURES
from train.evaluation.benchmarks import BENCHMARKS
from train.evaluation.benchmarks.samples import METRIC_FEATURES, load_benchmark
from train.evaluation.benchmarks.source import BenchmarkSource, read_questions

BUDGET, MAX_LENGTH = 16, 512


@pytest.fixture(scope="module")
def processor(tiny_llava: Path) -> CropLlavaProcessor:
    return CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=BUDGET)


def load(source: BenchmarkSource, processor: CropLlavaProcessor, max_length: int) -> datasets.Dataset:
    return load_benchmark(source, processor, max_length, read_questions(source))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_asked_through_the_collator(
    name: str, tmp_path: Path, processor: CropLlavaProcessor
) -> None:
    source = PUBLISHED[name]().write(tmp_path, name)
    asked = read_questions(source)
    rows = load(source, processor, MAX_LENGTH)
    assert set(rows.column_names) == (FEATURES.keys() | METRIC_FEATURES.keys()) - {"bad"}
    assert len(set(rows["sample_id"][:])) == len(asked)
    for row, question in zip(rows, asked, strict=True):
        user, assistant = json.loads(row["messages"])
        assert user["content"] == [{"type": "image"}, {"type": "text", "text": question.prompt}]
        assert assistant["content"][0]["text"] in question.targets
        told = (question.question_id, question.question, list(question.targets), list(question.choices))
        assert told == (row["question_id"], row["question"], row["targets"], row["choices"])
        assert (row["group"], row["kind"], row["image_key"]) == (question.group, question.group, question.image_key)
        assert row["benchmark"] == name
    batch = Collator(processor).prompts(list(rows))
    assert (batch["input_ids"] == processor.image_token_id).sum() == BUDGET * len(rows)
    longest = max(rows["length"])
    assert batch["attention_mask"].sum(dim=1).max() <= longest  # a length has the answer too


def test_the_answer_is_what_most_annotators_gave(tmp_path: Path, processor: CropLlavaProcessor) -> None:
    published = PUBLISHED["vizwiz"]()
    answers = [{"answer": text} for text in ["", "a soup", *ten("soup")]]
    published.files["val.json"][1]["answers"] = answers
    row = load(published.write(tmp_path, "vizwiz"), processor, MAX_LENGTH)[1]
    assert row["answer"] == "soup"
    assert row["targets"] == ["", "a soup", *ten("soup")]


def test_regions_are_clipped_and_lost_ones_are_told(
    tmp_path: Path, processor: CropLlavaProcessor, capsys: pytest.CaptureFixture[str]
) -> None:
    source = PUBLISHED["visual_cot"]().write(tmp_path, "visual_cot")
    rows = load(source, processor, MAX_LENGTH)
    assert rows["region"][:] == [[30, 20, WIDTH, HEIGHT], [10, 5, 30, 20], None]
    assert {*rows["width"], *rows["height"]} == {WIDTH, HEIGHT}
    assert "1 of 3 regions lie outside their images" in capsys.readouterr().out

    published = PUBLISHED["visual_cot"]()
    published.files = {"gqa.json": [visual_cot_record()]}
    load(published.write(tmp_path / "good", "visual_cot"), processor, MAX_LENGTH)
    assert capsys.readouterr().out == ""


def test_questions_that_were_read_are_not_read_again(tmp_path: Path, processor: CropLlavaProcessor) -> None:
    source = PUBLISHED["gqa"]().write(tmp_path, "gqa")
    asked = read_questions(source)
    (Path(source.path) / "testdev_balanced_questions.json").unlink()
    assert load_benchmark(source, processor, MAX_LENGTH, asked[:1])["question_id"][:] == ["201307251"]


def test_a_question_too_long_is_refused_by_name(tmp_path: Path, processor: CropLlavaProcessor) -> None:
    source = PUBLISHED["gqa"]().write(tmp_path, "gqa")
    with pytest.raises(DataError, match=r"record '201307251': \d+ tokens, above max_length 20"):
        load(source, processor, 20)


def test_a_damaged_image_with_a_region_is_refused_by_name(tmp_path: Path, processor: CropLlavaProcessor) -> None:
    source = PUBLISHED["visual_cot"]().write(tmp_path, "visual_cot")
    (tmp_path / "images" / "cot/gqa/2316539.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"dude.json: record 0: .*2316539.jpg: not an image"):
        load(source, processor, MAX_LENGTH)
