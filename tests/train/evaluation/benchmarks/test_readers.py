"""Every benchmark's published form, and the prompts that LLaVA-1.5's own question files have for such questions."""

from pathlib import Path

import pytest

from tests.train.evaluation.benchmarks.official import PUBLISHED, WIDTH, lines, ten
from train.evaluation.benchmarks import BENCHMARKS
from train.evaluation.benchmarks.mme import CATEGORIES
from train.evaluation.benchmarks.question import BenchmarkQuestion
from train.evaluation.benchmarks.source import BenchmarkSource, read_questions

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


def read(name: str, folder: Path, **options: bool) -> list[BenchmarkQuestion]:
    return read_questions(PUBLISHED[name]().write(folder, name, **options))


def test_every_benchmark_has_a_published_form_here() -> None:
    assert PUBLISHED.keys() == BENCHMARKS.keys()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_all_have(name: str, tmp_path: Path) -> None:
    source = PUBLISHED[name]().write(tmp_path, name)
    asked = read_questions(source)
    assert len(asked) >= 2
    for question in asked:
        assert (Path(source.image_root) / question.image).is_file()
        assert question.record.startswith(str(tmp_path))
        assert question.prompt.endswith(BENCHMARKS[name].instruction or question.question)
        assert "nswer" not in question.question.split("\n")[0] or name == "mmbench"  # no instruction in it
        assert (len(question.choices) > 1) == (BENCHMARKS[name].metric == "choice")
    assert read_questions(source) == asked  # nothing depends on what the first reading left


def test_gqa(tmp_path: Path) -> None:
    first, second = read("gqa", tmp_path)
    assert first.prompt == f"Is it overcast?{SHORT}"
    assert (first.question_id, first.image, first.targets) == ("201307251", "n161313.jpg", ("no",))
    assert (first.group, second.group, first.region) == ("verify", "query", None)


def test_vqav2_joins_questions_and_annotations(tmp_path: Path) -> None:
    first, second = read("vqav2", tmp_path)
    assert first.prompt == f"Where is he looking?{SHORT}"
    assert (first.question_id, first.image) == ("262148000", "COCO_val2014_000000262148.jpg")
    assert first.targets == tuple(ten("down", "at table"))
    assert (first.group, second.group, second.targets) == ("other", "number", tuple(ten("2")))


def test_textvqa_with_and_without_the_images_text(tmp_path: Path) -> None:
    plain, shouted, _ = read("textvqa", tmp_path)
    assert plain.prompt == f"What is the brand of this camera?{SHORT}"
    assert shouted.prompt == f"What does it say?{SHORT}"
    assert (plain.question, plain.question_id) == ("what is the brand of this camera?", "34602")
    assert plain.targets == tuple(ten("dakota", "dakota digital"))
    texts = [question.prompt for question in read("textvqa", tmp_path, ocr_tokens=True)]
    assert texts[0] == f"What is the brand of this camera?\nReference OCR token: DAKOTA, DIGITAL{SHORT}"
    assert texts[2] == f"What is the brand of this camera?\nReference OCR token: {SHORT}"


def test_pope_has_three_splits_with_numbers_of_their_own(tmp_path: Path) -> None:
    asked = read("pope", tmp_path)
    assert [question.question_id for question in asked[:3]] == ["random/1", "random/2", "popular/1"]
    assert [question.group for question in asked] == [g for g in ("random", "popular", "adversarial") for _ in "12"]
    assert asked[1].prompt == f"Is there an umbrella in the imange?{SHORT}"  # sic, in the benchmark
    assert [question.targets for question in asked[:2]] == [("yes",), ("no",)]


def test_mme_in_both_layouts(tmp_path: Path) -> None:
    asked = read("mme", tmp_path)
    assert len(asked) == 4 * len(CATEGORIES)
    by_id = {question.question_id: question for question in asked}
    flat, apart = by_id["count/0001/1"], by_id["artwork/0002/2"]
    assert flat.prompt == f"Is this count?{SHORT}"
    assert (flat.image, flat.group, flat.image_key, flat.targets) == ("count/0001.png", "count", "0001.png", ("Yes",))
    assert apart.prompt == f"Is it not?{SHORT}"
    assert (apart.image, apart.image_key, apart.targets) == ("artwork/images/0002.jpg", "0002.jpg", ("No",))
    pairs = [(question.group, question.image_key) for question in asked]
    assert all(pairs.count(pair) == 2 for pair in pairs)


def test_scienceqa_takes_the_test_split_s_questions_with_an_image(tmp_path: Path) -> None:
    first, second = read("scienceqa", tmp_path)
    assert first.prompt == (
        "Context: Select the best answer.\nWhich property do these three objects have in common?"
        f"\nA. shiny\nB. slippery\nC. opaque{LETTER}"
    )
    assert (first.question_id, first.image, first.targets) == ("46", "46/image.png", ("C",))
    assert first.question == "Which property do these three objects have in common?"
    assert second.prompt == f"Which colony?\nA. Maryland\nB. Ohio{LETTER}"
    assert (second.choices, second.group) == (("Maryland", "Ohio"), "natural science")


def test_mmbench_s_rows_rotations_and_images(tmp_path: Path) -> None:
    first, rotated, four = read("mmbench", tmp_path)
    assert first.prompt == (
        'The passage below describes an experiment.\nIdentify the question\tthat "it" can answer.\nLook twice.'
        f'\nA. Do rocks fall?\nB. Do "birds" fly?{LETTER}'
    )
    assert first.question == 'Identify the question\tthat "it" can answer.\nLook twice.'
    assert (first.question_id, first.targets, first.group) == ("241", ("B",), "identity_reasoning")
    assert (rotated.question_id, rotated.targets, rotated.image) == ("1000241", ("A",), first.image)
    assert four.prompt == f'Which?\nA. Do rocks fall?\nB. Do "birds" fly?\nC. Three\nD. Four{LETTER}'
    assert four.image != first.image
    assert len(list((tmp_path / "images").iterdir())) == 2
    assert all(question.embedded is None for question in (first, rotated, four))


def test_vizwiz_may_be_unanswerable(tmp_path: Path) -> None:
    first, second = read("vizwiz", tmp_path)
    unanswerable = "\nWhen the provided information is insufficient, respond with 'Unanswerable'."
    assert first.prompt == f"Ok. there is another picture i hope it is a better one.{unanswerable}{SHORT}"
    assert first.question == "Ok. There is another picture I hope it is a better one."
    assert first.targets == tuple(ten("unanswerable", "unsuitable image"))
    assert second.prompt == f"What is this? {unanswerable}{SHORT}"
    assert (second.question_id, second.group) == ("VizWiz_val_00000001.jpg", "other")


def test_docvqa(tmp_path: Path) -> None:
    first, second = read("docvqa", tmp_path)
    assert first.prompt == f"What is the ‘actual’ value per 1000, during the year 1975?{SHORT}"
    assert (first.question_id, first.image) == ("49153", "documents/pybv0228_81.png")
    assert second.targets == ("university of california", "California")
    assert (first.group, second.group) == ("figure/diagram", "table/list, form")


def test_seed_bench_leaves_videos_out(tmp_path: Path) -> None:
    first, second = read("seed_bench", tmp_path)
    assert first.prompt == f"How many towels are in the image?\nA. One\nB. Two\nC. Three\nD. Four{LETTER}"
    assert (first.question_id, first.image, first.targets) == ("101669", "1454426_2591111986", ("A",))
    assert (first.group, second.group, second.targets) == ("Instances Counting", "Instance Location", ("D",))


def test_visual_cot_s_regions_are_the_pixels_behind_the_path(tmp_path: Path) -> None:
    over, first, outside = read("visual_cot", tmp_path)  # of emotic.json none
    assert first.prompt == first.question == "What is behind it?"
    assert (first.question_id, first.image, first.targets) == ("gqa/7", "cot/gqa/2316539.jpg", ("window",))
    assert (first.region, first.group, over.group) == ((10, 5, 30, 20), "gqa", "dude")
    assert over.region is not None and over.region[2] > WIDTH  # as annotated: the loader clips it
    assert outside.question_id == "gqa/8"


def test_a_file_stands_for_one_split(tmp_path: Path) -> None:
    whole = PUBLISHED["pope"]().write(tmp_path, "pope")
    file = Path(whole.path) / "coco_pope_popular.json"
    asked = read_questions(BenchmarkSource("pope", str(file), whole.image_root))
    assert {question.group for question in asked} == {"popular"}

    published = PUBLISHED["gqa"]()
    published.files = {"val_balanced_questions.json": published.files["testdev_balanced_questions.json"]}
    source = published.write(tmp_path, "gqa")
    file = Path(source.path) / "val_balanced_questions.json"
    assert len(read_questions(BenchmarkSource("gqa", str(file), source.image_root))) == 2


def test_a_mark_at_the_start_of_a_file_is_none_of_its_text(tmp_path: Path) -> None:
    published = PUBLISHED["pope"]()
    published.files["coco_pope_random.json"] = "\ufeff" + published.files["coco_pope_random.json"] + lines([])
    assert len(read_questions(published.write(tmp_path, "pope"))) == 6
