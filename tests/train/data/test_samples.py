"""Samples: what of a file becomes a row, what a row becomes for the model, and which defects are refused by name."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crop_model.patches import patch_mask
from crop_model.processing_crop_llava import CropLlavaProcessor
from crop_model.regions import expand_box
from data_prep.common.errors import DataError
from data_prep.schema.data_source import DataSource
from data_prep.schema.sample import RegionAnnotation, sample_id, write_regions
from train.data import samples as samples_module
from train.data.collator import Collator
from train.data.quarantine import BadSample
from train.data.samples import _weighted_indices, load_samples

BUDGET = 16


@pytest.fixture(scope="module")
def processor(tiny_llava: Path) -> CropLlavaProcessor:
    return CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=BUDGET)


@pytest.fixture
def samples(toy_data: Path, processor: CropLlavaProcessor) -> datasets.Dataset:
    source = DataSource(str(toy_data / "data.json"), str(toy_data / "images"), str(toy_data / "regions" / "toy"))
    return load_samples([source], processor, max_length=512)


def said(question: Any, answer: str) -> list[dict[str, Any]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def load(folder: Path, records: Any, processor: CropLlavaProcessor, **options: Any) -> datasets.Dataset:
    """The samples of a LLaVA JSON beside one image, a.png of 40x30 pixels."""
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (40, 30), "red").save(folder / "images" / "a.png")
    text = json.dumps(records)
    if not (folder / "data.json").is_file() or (folder / "data.json").read_text() != text:
        (folder / "data.json").write_text(text)
    source = DataSource(str(folder / "data.json"), str(folder / "images"), options.pop("regions", None))
    return load_samples([source], processor, **{"max_length": 512, **options})


# ---- rows


def test_a_question_with_an_image_is_a_sample_of_its_own(tmp_path: Path, processor: CropLlavaProcessor) -> None:
    turns = [*said("<image>\nwhat is the digit ?", "7"), *said("how many ?", "3")]
    turns[2]["type"] = "count"
    rows = load(tmp_path, [{"id": 4, "image": "a.png", "conversations": turns}], processor)
    assert rows["question"][:] == ["what is the digit ?", "how many ?"]
    assert rows["answer"][:] == ["7", "3"]
    assert rows["kind"][:] == [None, "count"]
    assert rows["sample_id"][:] == [
        sample_id("data", "a.png", 0, "what is the digit ?"),
        sample_id("data", "a.png", 1, "how many ?"),
    ]
    assert "record 0 (id 4)" in rows[0]["record"]
    for row in rows:
        messages = json.loads(row["messages"])
        assert [message["role"] for message in messages] == ["user", "assistant"]
        assert messages[0]["content"][0] == {"type": "image"}


def test_text_alone_stays_whole_and_several_images_go_first(tmp_path: Path, processor: CropLlavaProcessor) -> None:
    text = [{"from": "system", "value": "the digit"}, *said("what is ?", "red"), *said("how many ?", "3")]
    pair = said("<image>\nwhat is <image> the colour ?", "red and blue")
    rows = load(tmp_path, [{"conversations": text}, {"image": ["a.png"] * 2, "conversations": pair}], processor)
    assert len(rows) == 2
    assert [len(images) for images in rows["images"]] == [0, 2]
    assert [message["role"] for message in json.loads(rows[0]["messages"])] == ["system", *["user", "assistant"] * 2]
    assert rows[1]["question"] == "what is  the colour ?"
    batch = Collator(processor)(list(rows))
    assert batch["pixel_values"].shape[0] == batch["region_mask"].shape[0] == 2
    assert (batch["input_ids"] == processor.image_token_id).sum(dim=1).tolist() == [0, 2 * BUDGET]
    assert "pixel_values" not in Collator(processor)([rows[0]])


def test_forms_of_the_same_data_give_the_same_rows(tmp_path: Path, processor: CropLlavaProcessor) -> None:
    llava = [{"image": "a.png", "conversations": said("<image>what is here ?", "7")}]
    messages = [{"role": "user", "content": "<image>what is here ?"}, {"role": "assistant", "content": "7"}]
    records = [{"images": ["a.png"], "messages": messages}]
    expected = load(tmp_path, llava, processor).remove_columns(["record"]).to_list()
    (tmp_path / "data.jsonl").write_text("\n".join(json.dumps(record) for record in records) + "\n\n")
    datasets.Dataset.from_list(records).to_parquet(tmp_path / "part-0.parquet")
    (tmp_path / "parquet").mkdir()
    datasets.Dataset.from_list(records).to_parquet(tmp_path / "parquet" / "data.parquet")
    datasets.Dataset.from_list(records).save_to_disk(tmp_path / "saved" / "data")
    for form in ("data.jsonl", "parquet/*.parquet", "saved/data"):
        source = DataSource(str(tmp_path / form), str(tmp_path / "images"))
        rows = load_samples([source], processor, max_length=512).remove_columns(["record"])
        ids = [sample_id(Path(form).stem, "a.png", 0, "what is here ?")]
        assert rows["sample_id"][:] == ids
        assert [row | {"sample_id": 0} for row in rows.to_list()] == [row | {"sample_id": 0} for row in expected]


def test_a_record_brings_its_own_boxes(tmp_path: Path, processor: CropLlavaProcessor) -> None:
    record = {"image": "a.png", "conversations": said("what is here ?", "7")}
    record["objects"] = {"bbox": [[1, 2, 11, 12], [5, 1, 20, 9]]}
    row = load(tmp_path, [record], processor)[0]
    assert (row["region"], row["width"], row["height"]) == ([1.0, 1.0, 20.0, 12.0], 40, 30)
    record["objects"]["bbox_type"] = "norm1"
    with pytest.raises(DataError, match="bbox_type"):
        load(tmp_path, [record], processor)


def test_boxes_are_put_right_before_they_are_united(tmp_path: Path, processor: CropLlavaProcessor) -> None:
    """Swapped corners, and one that ends beyond the image of 40x30 pixels."""
    record = {"image": "a.png", "conversations": said("what is here ?", "7")}
    record["objects"] = {"bbox": [[11, 12, 1, 2], [30, 1, 90, 9]]}
    assert load(tmp_path, [record], processor)[0]["region"] == [1.0, 1.0, 40.0, 12.0]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "image"}, {"type": "text", "text": "what is here ?"}], "<image>what is here ?"),
        ([{"type": "text", "text": "what "}, {"type": "text", "text": "is here ?"}], "what is here ?"),
        ([{"type": "text", "text": "<image>what is here ?", "index": None}], "<image>what is here ?"),
        ([{"type": "text", "text": "is it"}, {"type": "image", "text": None}], "is it<image>"),
    ],
)
def test_parts_of_a_content_are_as_good_as_its_text(
    content: list[Any], text: str, tmp_path: Path, processor: CropLlavaProcessor
) -> None:
    def rows(asked: Any, answer: Any) -> list[dict[str, Any]]:
        messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        return load(tmp_path, [{"images": ["a.png"], "messages": messages}], processor).to_list()

    assert rows(content, [{"type": "text", "text": "7"}]) == rows(text, "7")


@given(st.integers(1, 50), st.floats(0.01, 4))
def test_weights(count: int, weight: float) -> None:
    indices = _weighted_indices(count, weight, seed=3)
    assert len(indices) == int(weight) * count + round(weight % 1 * count)
    times = [indices.count(index) for index in range(count)]
    assert max(times) - min(times) <= 1
    assert indices == _weighted_indices(count, weight, seed=3)


# ---- conversations that stay whole


def write_sidecar(folder: Path, regions: dict[int, tuple[float, ...] | None]) -> str:
    """The regions of some of `WHOLE`'s questions, by their numbers."""
    annotations = []
    for number, box in regions.items():
        question = QUESTIONS[number]
        key = sample_id("toy", "a.png", number, question)
        boxes: Any = [] if box is None else [box]
        annotations.append(RegionAnnotation(key, "toy", "a.png", number, question, 40, 30, boxes, box, "human"))  # type: ignore[arg-type]
    write_regions(folder / "regions", annotations, {})
    return str(folder / "regions")


QUESTIONS = ("what is the digit ?", "how many ?", "what colour ?")
WHOLE = {"image": "a.png", "conversations": [entry for question in QUESTIONS for entry in said(question, "7")]}


@pytest.mark.parametrize(
    ("regions", "union"),
    [
        ({0: (1, 2, 11, 12), 1: (5, 1, 20, 9), 2: (3, 3, 4, 4)}, [1.0, 1.0, 20.0, 12.0]),
        ({0: (1, 2, 11, 12), 1: None, 2: (3, 3, 4, 4)}, None),  # a question about the whole image
        ({0: (1, 2, 11, 12), 2: (3, 3, 4, 4)}, None),  # one that the sidecar does not know
    ],
)
def test_a_whole_conversation_has_the_union_of_its_regions(
    regions: dict[int, tuple[float, ...] | None], union: Any, tmp_path: Path, processor: CropLlavaProcessor
) -> None:
    sidecar = write_sidecar(tmp_path, regions)
    (row,) = load(tmp_path, [WHOLE], processor, regions=sidecar, split_turns=False)
    assert (row["region"], row["width"], row["height"]) == (union, 40, 30)
    assert row["sample_id"] == sample_id("toy", "a.png", 0, QUESTIONS[0])
    messages = json.loads(row["messages"])
    assert [message["role"] for message in messages] == ["user", "assistant"] * 3
    assert [len(message["content"]) for message in messages] == [2, 1, 1, 1, 1, 1]
    batch = Collator(processor)([row])
    assert row["length"] == batch["input_ids"].shape[1]
    assert (batch["labels"] != -100).sum() == 3 * 2  # every answer and its end


# ---- the table on disk


def test_a_source_is_read_once_until_something_changes(
    tmp_path: Path, processor: CropLlavaProcessor, tiny_llava: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read = samples_module.read_rows
    monkeypatch.setattr(samples_module, "read_rows", lambda *args: reads.append(args) or read(*args))
    records = [WHOLE]
    first = load(tmp_path, records, processor)
    assert load(tmp_path, records, processor).to_list() == first.to_list()
    assert len(reads) == 1
    assert first.cache_files  # mapped from disk, not held
    other = CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=8)
    assert load(tmp_path, records, other)["length"][0] == first["length"][0] - 8
    load(tmp_path, records, processor, max_length=500)
    load(tmp_path, records, processor, split_turns=False)
    load(tmp_path, records, processor, regions=write_sidecar(tmp_path, {0: (1, 2, 11, 12)}))
    assert len(reads) == 5
    moved = load(tmp_path, records, processor, regions=write_sidecar(tmp_path, {0: (2, 2, 11, 12)}))
    assert moved[0]["region"] == [2.0, 2.0, 11.0, 12.0]
    assert len(load(tmp_path, [*records, ONE], processor)) == len(first) + 1


def test_what_one_run_skipped_stops_the_next_one_that_does_not(tmp_path: Path, processor: CropLlavaProcessor) -> None:
    bad: list[BadSample] = []
    records = [ONE, {**ONE, "image": "b.png"}]
    assert len(load(tmp_path, records, processor, bad=bad)) == 1
    assert [sample.image for sample in bad] == ["b.png"]
    with pytest.raises(DataError, match="record 1: no image file"):
        load(tmp_path, records, processor)
    with pytest.raises(DataError, match="record 0: no image file"):
        load(tmp_path, records[1:], processor, bad=[])


# ---- batches


def test_labels_are_the_answers_and_nothing_else(samples: datasets.Dataset, processor: CropLlavaProcessor) -> None:
    """Against a search of the answer's own tokens, which know nothing of templates or offsets."""
    batch = Collator(processor)(list(samples))
    for row, ids, labels in zip(samples, batch["input_ids"].tolist(), batch["labels"].tolist(), strict=True):
        answer = processor.tokenizer(row["answer"] + "</s>", add_special_tokens=False)["input_ids"]
        places = [i for i in range(len(ids)) if ids[i : i + len(answer)] == answer]
        start = places[-1]
        assert labels == [-100] * start + answer + [-100] * (len(ids) - start - len(answer))


def test_lengths_are_known_without_reading_images(samples: datasets.Dataset, processor: CropLlavaProcessor) -> None:
    batch = Collator(processor)(list(samples))
    assert batch["attention_mask"].sum(dim=1).tolist() == samples["length"][:]
    assert not batch["attention_mask"][:, 0].eq(0).any()  # padded on the right
    assert batch["sample_ids"] == samples["sample_id"][:]


def test_prompts_are_what_stands_before_the_answer(samples: datasets.Dataset, processor: CropLlavaProcessor) -> None:
    collator = Collator(processor)
    rows = list(samples)[:4]
    batch, prompts = collator(rows), collator.prompts(rows)
    for index in range(len(rows)):
        before = batch["input_ids"][index, : (batch["labels"][index] != -100).int().argmax()]
        prompt = prompts["input_ids"][index, prompts["attention_mask"][index].bool()]
        assert torch.equal(prompt, before)
    assert prompts["attention_mask"][:, -1].all()  # padded on the left
    assert torch.equal(prompts["pixel_values"], batch["pixel_values"])


@pytest.mark.parametrize(("scale", "min_side"), [(1.0, 0.0), (1.5, 0.4)])
def test_region_masks_are_of_the_grown_regions(
    samples: datasets.Dataset, tiny_llava: Path, scale: float, min_side: float
) -> None:
    processor = CropLlavaProcessor.from_pretrained(
        tiny_llava, token_budget=BUDGET, region_scale=scale, region_min_side=min_side
    )
    collator = Collator(processor)
    batch = collator(list(samples))
    for row, mask in zip(samples, batch["region_mask"], strict=True):
        unit = None
        if row["region"] is not None:
            box = expand_box(tuple(row["region"]), row["width"], row["height"], scale, min_side)
            assert collator.region(row) == box
            unit = processor.geometry.to_unit(box, row["width"], row["height"])
        assert torch.equal(mask, patch_mask(unit, processor.patch_grid))
    assert not batch["region_mask"][2].any()
    assert batch["region_mask"][0].any()


def test_exif_orientation_is_not_applied(tmp_path: Path, processor: CropLlavaProcessor) -> None:
    row = load(tmp_path, [{"image": "a.png", "conversations": said("what is here ?", "7")}], processor)[0]
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (40, 30), "red").save(tmp_path / "images" / "a.png", exif=exif)
    assert Collator(processor).open_images(row)[0].size == (40, 30)


# ---- defects


ONE = {"image": "a.png", "conversations": said("<image>what is here ?", "7")}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**ONE, "conversations": said("<image>what is here ?", " ")}, "record 0: question 0 has no answer"),
        ({**ONE, "conversations": said("<image>", "7")}, "record 0: question 0 has no text"),
        ({**ONE, "conversations": ONE["conversations"][:1]}, "expected questions, each with its answer"),
        ({**ONE, "conversations": [{"from": "dog", "value": "wau"}]}, "expected {from, value}"),
        ({"image": "a.png"}, "expected questions, each with its answer"),
        ({"conversations": said("<image>what is here ?", "7")}, "1 <image> in the text for 0 images"),
        ({**ONE, "conversations": said("what ?", "an <image> here")}, "the text holds '<image>' besides its 1 images"),
        ({**ONE, "image": "b.png"}, "no image file"),
        ({**ONE, "image": "../data.json"}, "outside image_root"),
        ({**ONE, "image": "/etc/hostname"}, "outside image_root"),
        ({**ONE, "image": "https://example.org/a.png"}, "is a URL"),
        ({**ONE, "image": {"bytes": "x", "path": None}}, "embedded images are not read"),
        ({**ONE, "objects": {"bbox": [[50, 50, 60, 60]]}}, "outside"),
        ({**ONE, "objects": {"bbox": [[1, 1, 9, 9], [50, 50, 60, 60]]}}, "objects.bbox: .*outside"),
        ({**ONE, "objects": {"bbox": [[1, 2, 3]]}}, "objects.bbox: .*not four numbers"),
        ({**ONE, "objects": {"bbox": [1, 2, 3, 4]}}, "objects.bbox: .*not four numbers"),
        ({**ONE, "objects": {"bbox": 5}}, "objects: expected {bbox: "),
        ({**ONE, "objects": [[1, 2, 3, 4]]}, "objects: expected {bbox: "),
        ({**ONE, "conversations": said([{"type": "image"}] * 2, "7")}, "2 <image> in the text for 1 images"),
        ({**ONE, "conversations": said([{"type": "video"}], "7")}, "expected {from, value}"),
        ({**ONE, "conversations": said([{"type": "text", "text": None}], "7")}, "expected {from, value}"),
        ("a.png", "expected a mapping"),
    ],
)
def test_defects_are_refused_by_name(record: Any, message: str, tmp_path: Path, processor: CropLlavaProcessor) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(tmp_path, [record], processor)
    assert "data.json: record 0" in str(caught.value)


def test_a_long_sample_is_refused_and_none_is_cut(tmp_path: Path, processor: CropLlavaProcessor) -> None:
    length = load(tmp_path, [ONE], processor)[0]["length"]
    assert len(load(tmp_path, [ONE], processor, max_length=length)) == 1
    with pytest.raises(DataError, match=f"record 0: {length} tokens, above max_length {length - 1}"):
        load(tmp_path, [ONE], processor, max_length=length - 1)


def test_files_that_are_not_data(tmp_path: Path, processor: CropLlavaProcessor) -> None:
    for name, text, message in [
        ("a.json", "[{", "a.json: not JSON"),
        ("a.json", "", "a.json: not JSON"),
        ("a.json", "{}", "a.json: expected a list"),
        ("a.json", "[]", "a.json: no samples"),
        ("a.jsonl", json.dumps({"conversations": said("what ?", "7")}) + "\n\n{", "a.jsonl: line 3: not JSON"),
    ]:
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=message):
            list(load_samples([DataSource(str(tmp_path / name))], processor, 99))


def test_broken_files_and_folders(tmp_path: Path, processor: CropLlavaProcessor) -> None:
    records = datasets.Dataset.from_list([{"conversations": said("what ?", "7")}])
    for name in ("saved", "cut", "mixed"):
        records.save_to_disk(tmp_path / name)
    (arrow,) = (tmp_path / "cut").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:150])
    (tmp_path / "mixed" / "state.json").write_text("{")
    for name in ("ok", "cut", "other"):
        records.to_parquet(tmp_path / "parquet" / f"{name}.parquet")
    cut = tmp_path / "parquet" / "cut.parquet"
    cut.write_bytes(cut.read_bytes()[:-60])
    (tmp_path / "empty.parquet").touch()
    (tmp_path / "latin.json").write_bytes('["\xe4"]'.encode("latin-1"))
    assert len(load_samples([DataSource(str(tmp_path / "saved"))], processor, 99)) == 1
    assert len(load_samples([DataSource(str(tmp_path / "parquet" / "o*.parquet"))], processor, 99)) == 2
    for name, message in [
        ("cut", "/cut: not a folder saved by"),
        ("mixed", "/mixed: not a folder saved by"),
        ("parquet", "/parquet: not a folder saved by"),
        ("parquet/*.parquet", "/parquet/cut.parquet: not parquet"),
        ("empty.parquet", "/empty.parquet: not parquet"),
        ("latin.json", "/latin.json: not JSON"),
        ("lat*.json", r"/lat\*.json: .*No such file"),
    ]:
        with pytest.raises(DataError, match=message):
            load_samples([DataSource(str(tmp_path / name))], processor, 99)


def test_a_template_must_mark_the_answers(tmp_path: Path, tiny_llava: Path) -> None:
    plain = CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=BUDGET)
    plain.chat_template = plain.chat_template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    with pytest.raises(DataError, match=r"chat template: no {% generation %} span"):
        load(tmp_path, [ONE], plain)
    silent = CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=BUDGET)
    silent.chat_template = plain.chat_template + "{% if false %}{% generation %}{% endgeneration %}{% endif %}"
    row = load(tmp_path, [ONE], silent)[0]
    with pytest.raises(DataError, match=r"record 0 .*no token of it is supervised"):
        Collator(silent)([row])


def test_the_shipped_template_is_llavas_prompt(tiny_llava: Path) -> None:
    processor = CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=BUDGET)
    file = Path(__file__).parents[3] / "configs" / "chat_templates" / "llava-1.5.jinja"
    processor.chat_template = file.read_text()

    def message(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": text}]}

    messages = [
        message("user", "what ?"),
        message("assistant", "7"),
        message("user", "how ?"),
        message("assistant", "red"),
    ]
    messages[0]["content"].insert(0, {"type": "image"})
    text = processor.apply_chat_template(messages)
    assert text == "USER: <image>\nwhat ? ASSISTANT: 7</s>USER: how ? ASSISTANT: red</s>"
    prompt = processor.apply_chat_template(messages[:1], add_generation_prompt=True)
    assert prompt == "USER: <image>\nwhat ? ASSISTANT:"
    messages[0]["content"][0]["image"] = Image.new("RGB", (9, 9))
    marked = processor.apply_chat_template(
        [messages], tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    answers = [i for i, kept in zip(marked["input_ids"][0], marked["assistant_masks"][0], strict=True) if kept]
    assert processor.tokenizer.convert_ids_to_tokens(answers) == ["7", "</s>", "red", "</s>"]


def test_sidecars_that_do_not_fit(tmp_path: Path, processor: CropLlavaProcessor) -> None:
    def write(question: str, box: tuple[float, ...], size: tuple[int, int]) -> str:
        key = sample_id("toy", "a.png", 0, question)
        annotation = RegionAnnotation(key, "toy", "a.png", 0, question, *size, [box], box, "human")  # type: ignore[arg-type]
        write_regions(tmp_path / "regions", [annotation], {})
        return str(tmp_path / "regions")

    with pytest.raises(DataError, match="holds none of the questions"):
        load(tmp_path, [ONE], processor, regions=write("what is there ?", (1, 1, 9, 9), (40, 30)))
    with pytest.raises(DataError, match=r"record 0: question 0: .*outside"):
        load(tmp_path, [ONE], processor, regions=write("what is here ?", (50, 50, 60, 60), (40, 30)))
    row = load(tmp_path, [ONE], processor, regions=write("what is here ?", (1, 1, 9, 9), (30, 40)))[0]
    with pytest.raises(DataError, match=r"record 0 .*a.png is 40x30, its region is of 30x40"):
        Collator(processor)([row])


def test_images_that_do_not_open(tmp_path: Path, processor: CropLlavaProcessor) -> None:
    row = load(tmp_path, [ONE], processor)[0]
    with pytest.raises(DataError, match=r"record 0 .*is 40x30, above max_image_pixels 1000"):
        Collator(processor, max_image_pixels=1000)([row])
    file = Path(row["images"][0])
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(DataError, match=f"record 0 .*{file}"):
        Collator(processor)([row])
