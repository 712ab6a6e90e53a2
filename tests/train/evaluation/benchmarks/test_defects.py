"""For every benchmark a wrong, a missing and a repeated record: one line that names file and record."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.common.errors import DataError
from tests.train.evaluation.benchmarks.official import (
    MMBENCH_COLUMNS,
    PUBLISHED,
    lines,
    mmbench_row,
    mmbench_table,
    visual_cot_record,
)
from train.evaluation.benchmarks import BENCHMARKS
from train.evaluation.benchmarks.source import BenchmarkSource, read_questions

Files = dict[str, Any]
Damage = Callable[[Files], object]

GQA, SEED, VIZWIZ, DOCVQA = "testdev_balanced_questions.json", "SEED-Bench.json", "val.json", "val_v1.0_withQT.json"
VQA_QUESTIONS, VQA_ANSWERS = "v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"
TEXTVQA, OCR, MMBENCH = "TextVQA_0.5.1_val.json", "TextVQA_Rosetta_OCR_v0.2_val.json", "mmbench_dev_20230712.tsv"


def table(*rows: dict[str, Any], columns: tuple[str, ...] = MMBENCH_COLUMNS) -> Damage:
    return lambda files: files.update({MMBENCH: mmbench_table(list(rows), columns)})


def text(name: str, content: str) -> Damage:
    return lambda files: files.update({name: content})


def pope_lines(*records: dict[str, Any]) -> Damage:
    return text("coco_pope_random.json", lines(list(records)))


POPE = {"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a dog?", "label": "yes"}
NO_TAB = "Is it? Please answer yes or no. Yes\nIs it not?\tNo\n"

WRONG: list[tuple[str, Damage, str]] = [
    ("docvqa", lambda f: f[DOCVQA]["data"][1].update(image=None), r"withQT.json: record 1: image: Input should be"),
    ("gqa", lambda f: f[GQA]["201640614"].update(question=5), r"questions.json: record '201640614': question: "),
    ("gqa", lambda f: f[GQA]["201640614"].update(imageId="../x"), r"record '201640614': .*outside image_root"),
    ("gqa", lambda f: f[GQA]["201640614"].update(imageId="gone"), r"record '201640614': no image file .*gone.jpg"),
    ("gqa", lambda f: f[GQA]["201640614"].update(question=" "), r"record '201640614': no question"),
    ("gqa", text(GQA, "[1, 2]"), r"questions.json: expected a mapping"),
    ("gqa", text(GQA, '{"1": {'), r"questions.json: not JSON"),
    ("mmbench", table(mmbench_row(), mmbench_row(index="x")), r"0712.tsv: row 2: index: "),
    ("mmbench", table(mmbench_row(image="*")), r"0712.tsv: row 1: image: not base64"),
    ("mmbench", table(mmbench_row(image="AAAA")), r"0712.tsv: row 1: [0-9a-f]{40}: not an image"),
    ("mmbench", table(mmbench_row(answer="C")), r"0712.tsv: row 1: answer 'C' is none of the options A, B$"),
    ("mmbench", table(mmbench_row(A="")), r"0712.tsv: row 1: index 241 has no options"),
    ("mmbench", text(MMBENCH, "index\tquestion\n1\n"), r"0712.tsv: .*Expected 2 columns"),
    ("mme", text("count/0001.txt", NO_TAB), r"count/0001.txt: line 1: expected a question, a tab"),
    ("mme", text("count/0001.txt", "Is it?\tMaybe\nIs it not?\tNo\n"), r"count/0001.txt: line 1: .*'Is it\?\\tMaybe'"),
    ("pope", pope_lines(POPE, POPE | {"question_id": 2, "label": "maybe"}), r"random.json: line 2: label: "),
    ("pope", text("coco_pope_random.json", "{\n"), r"random.json: line 1: not JSON"),
    ("pope", pope_lines(POPE | {"image": "https://example.org/1.jpg"}), r"random.json: line 1: .* is a URL"),
    ("scienceqa", lambda f: f["problems.json"]["11"].update(answer=2), r"record '11': answer 2 is none of its 2"),
    ("scienceqa", lambda f: f["problems.json"]["11"].update(choices=[]), r"problems.json: record '11': choices: "),
    (
        "seed_bench",
        lambda f: f[SEED]["questions"][2].update(answer="E"),
        r"record 2: answer 'E' is none of the options",
    ),
    ("seed_bench", lambda f: f[SEED]["questions"][2].update(question_type_id=99), r"record 2: question_type has no 99"),
    ("textvqa", lambda f: f[TEXTVQA]["data"][2].update(answers="dakota"), r"0.5.1_val.json: record 2: answers: "),
    ("visual_cot", lambda f: f["gqa.json"][1]["image"].pop(), r"gqa.json: record 1: no box in pixels"),
    (
        "visual_cot",
        lambda f: f["gqa.json"][1]["conversations"][3].update(value=""),
        r"gqa.json: record 1: .*no answer",
    ),
    ("vizwiz", lambda f: f[VIZWIZ][1].update(answers=[{"text": "soup"}]), r"val.json: record 1: answers.0.answer: "),
    ("vqav2", lambda f: f[VQA_QUESTIONS]["questions"][1].update(image_id=-1), r"questions.json: record 1: image_id: "),
    ("vqav2", lambda f: f[VQA_ANSWERS]["annotations"][1].update(answers=[]), r"annotations.json: record 1: answers: "),
]

MISSING: list[tuple[str, Damage, str]] = [
    ("docvqa", lambda f: f[DOCVQA]["data"][1].pop("answers"), r"withQT.json: record 1: no answer"),
    ("gqa", lambda f: f[GQA]["201640614"].pop("answer"), r"questions.json: record '201640614': no answer"),
    ("mmbench", table(mmbench_row(), columns=MMBENCH_COLUMNS[:7] + MMBENCH_COLUMNS[8:]), r"tsv: row 1: no answer"),
    ("mmbench", table(mmbench_row(), columns=MMBENCH_COLUMNS[:9]), r"0712.tsv: no column image"),
    (
        "mme",
        text("scene/questions_answers_YN/0001.txt", "Is it?\tYes\n"),
        r"scene/.*/0001.txt: 1 questions; MME asks 2",
    ),
    (
        "pope",
        pope_lines({key: value for key, value in POPE.items() if key != "label"}),
        r"line 1: label: Field required",
    ),
    ("scienceqa", lambda f: f["problems.json"].pop("46"), r"pid_splits.json: record 1 of test: '46' is not a problem"),
    ("seed_bench", lambda f: f[SEED]["questions"][2].pop("answer"), r"SEED-Bench.json: record 2: no answer"),
    ("textvqa", lambda f: f[TEXTVQA]["data"][2].pop("answers"), r"0.5.1_val.json: record 2: no answer"),
    ("visual_cot", lambda f: f["gqa.json"][1].pop("conversations"), r"gqa.json: record 1: conversations: Field req"),
    ("vizwiz", lambda f: f[VIZWIZ][1].pop("answers"), r"val.json: record 1: no answer"),
    ("vqav2", lambda f: f[VQA_ANSWERS]["annotations"].pop(0), r"record 1: question 262148001 has no annotation"),
]


def again(items: list[Any]) -> None:
    items.append(copy.deepcopy(items[0]))


def key_again(files: Files) -> None:
    files[GQA] = '{"7": {"imageId": "n1", "question": "Who?", "answer": "man"}, "7": {"imageId": "n1"}}'


TWICE: list[tuple[str, Damage, str]] = [
    ("docvqa", lambda f: again(f[DOCVQA]["data"]), r"record 2: question 49153 is there already: .*record 0$"),
    ("gqa", key_again, r"questions.json: record '7': the key occurs twice"),
    ("mmbench", table(mmbench_row(), mmbench_row()), r"row 2: question 241 is there already: .*row 1$"),
    (
        "mme",
        text("count/0001.txt", "Is it?\tYes\nIs it?\tYes\nIs it not?\tNo\n"),
        r"count/0001.txt: 3 questions; MME asks 2",
    ),
    ("pope", pope_lines(POPE, POPE), r"line 2: question random/1 is there already: .*line 1$"),
    ("scienceqa", lambda f: f["pid_splits.json"]["test"].append("46"), r"question 46 is there already: .*record '46'"),
    ("seed_bench", lambda f: again(f[SEED]["questions"]), r"record 3: question 101669 is there already: .*record 0$"),
    ("textvqa", lambda f: again(f[TEXTVQA]["data"]), r"record 3: question 34602 is there already: .*record 0$"),
    ("visual_cot", lambda f: again(f["gqa.json"]), r"gqa.json: record 2: question gqa/7 is there already: .*record 0$"),
    ("vizwiz", lambda f: again(f[VIZWIZ]), r"record 2: question VizWiz_val_00000000.jpg is there already: .*record 0$"),
    ("vqav2", lambda f: again(f[VQA_ANSWERS]["annotations"]), r"record 2: a second annotation of question 262148001"),
    ("vqav2", lambda f: again(f[VQA_QUESTIONS]["questions"]), r"record 2: question 262148000 is there already"),
]

NO_FILE: list[tuple[str, str, str]] = [
    ("mme", "count", r"files: no folder count in it; MME's totals are over 14 categories"),
    ("pope", "coco_pope_popular.json", r"files: no file coco_pope_popular.json in it"),
    ("scienceqa", "pid_splits.json", r"files: no file pid_splits.json in it"),
    ("vqav2", VQA_ANSWERS, r"val2014_annotations.json: no such file .*test splits have no public answers"),
    ("textvqa", TEXTVQA, r"files: no file TextVQA_0.5.1_val.json in it"),
]


def refused(folder: Path, name: str, damage: Damage, **options: bool) -> str:
    """The error of a benchmark whose files were damaged; one line."""
    published = PUBLISHED[name]()
    damage(published.files)
    source = published.write(folder, name, **options)
    with pytest.raises(DataError) as error:
        read_questions(source)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("name", "damage", "message"), [*WRONG, *MISSING, *TWICE])
def test_a_bad_record_is_refused_by_name(name: str, damage: Damage, message: str, tmp_path: Path) -> None:
    assert re.search(message, refused(tmp_path, name, damage))


@pytest.mark.parametrize("cases", [WRONG, MISSING, TWICE])
def test_no_benchmark_is_left_out(cases: list[tuple[str, Damage, str]]) -> None:
    # a question of MME is known by its place, so none can come twice
    assert {name for name, _, _ in cases} >= BENCHMARKS.keys() - ({"mme"} if cases is TWICE else set())


@pytest.mark.parametrize(("name", "file", "message"), NO_FILE)
def test_a_file_that_is_not_there(name: str, file: str, message: str, tmp_path: Path) -> None:
    def without(files: Files) -> None:
        for path in [path for path in files if path.split("/")[0] == file]:
            del files[path]

    published = PUBLISHED[name]()
    without(published.files)
    published.images = [image for image in published.images if image.split("/")[0] != file]
    source = published.write(tmp_path, name)
    with pytest.raises(DataError) as error:
        read_questions(source)
    assert re.search(message, str(error.value))


def test_the_images_text_must_be_there_for_every_image(tmp_path: Path) -> None:
    def drop(files: Files) -> None:
        files[OCR]["data"].pop()

    missing = refused(tmp_path / "a", "textvqa", drop, ocr_tokens=True)
    assert re.search(r"0.5.1_val.json: record 2: .*OCR_v0.2_val.json has no text of image 97b1112b17015396", missing)
    twice = refused(tmp_path / "b", "textvqa", lambda files: again(files[OCR]["data"]), ocr_tokens=True)
    assert re.search(r"v0.2_val.json: record 2: a second text of image 003a8ae2ef43b901", twice)


@pytest.mark.parametrize(
    ("name", "file", "record"),
    [
        ("textvqa", "TextVQA_0.5.1_test.json", {"data": [{"question_id": 1, "question": "what?", "image_id": "a"}]}),
        ("vizwiz", "test.json", [{"image": "a.jpg", "question": "What?"}]),
        ("docvqa", "test_v1.0.json", {"data": [{"questionId": 1, "question": "What?", "image": "a.jpg"}]}),
        ("gqa", "submission_all_questions.json", {"1": {"imageId": "a", "question": "What?"}}),
        (
            "vqav2",
            "v2_OpenEnded_mscoco_test-dev2015_questions.json",
            {"questions": [{"image_id": 1, "question_id": 1, "question": "What?"}]},
        ),
    ],
)
def test_a_test_split_has_nothing_to_score(name: str, file: str, record: Any, tmp_path: Path) -> None:
    published = PUBLISHED[name]()
    published.files, published.images = {file: record}, ["a.jpg"]
    source = published.write(tmp_path, name)
    with pytest.raises(DataError, match=r"test splits have no") as error:
        read_questions(BenchmarkSource(name, str(Path(source.path) / file), source.image_root))
    assert "\n" not in str(error.value)


def test_an_image_of_mme_without_a_file(tmp_path: Path) -> None:
    published = PUBLISHED["mme"]()
    published.images.remove("scene/images/0002.jpg")
    source = published.write(tmp_path, "mme")
    with pytest.raises(DataError, match=r"scene/questions_answers_YN/0002.txt: no image 0002 "):
        read_questions(source)


def test_a_benchmark_without_questions(tmp_path: Path) -> None:
    def empty(files: Files) -> None:
        files[VIZWIZ] = []

    assert "no questions of vizwiz" in refused(tmp_path, "vizwiz", empty)


def test_a_box_in_another_form_is_no_box(tmp_path: Path) -> None:
    def damage(files: Files) -> None:
        files["gqa.json"] = [visual_cot_record(box=[1, 2, 3])]

    assert "gqa.json: record 0: no box in pixels" in refused(tmp_path, "visual_cot", damage)
