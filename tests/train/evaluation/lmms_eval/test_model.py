"""lmms-eval's model: batches, likelihoods and regions against one question at a time; what it refuses."""

import json
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
from lmms_eval.api.instance import Instance
from lmms_eval.models import get_model
from PIL import Image

from crop_model.localization.base import LocatedRegion
from data_prep.common.errors import ConfigError, DataError
from data_prep.schema.sample import read_regions
from train.backbones.checkpoint import Checkpoint
from train.evaluation.lmms_eval.model import CropLlava, cut, generation_options, shared_length, stop_strings

SPLIT = "test"
Make = Callable[..., CropLlava]


@pytest.fixture(scope="module")
def docs(toy_data: Path) -> list[dict[str, Any]]:
    regions = {row.image: row.region for row in read_regions(toy_data / "regions" / "toy").values()}
    return [
        {
            "image": str(toy_data / "images" / record["image"]),
            "question": record["conversations"][0]["value"].removeprefix("<image>\n"),
            "answer": record["conversations"][1]["value"],
            "region": regions[record["image"]],
        }
        for record in json.loads((toy_data / "data.json").read_text())
    ]


@pytest.fixture
def make(tiny_crop_llava: Path, docs: list[dict]) -> Make:
    def build(**arguments: Any) -> CropLlava:
        model = CropLlava(str(tiny_crop_llava), **arguments)
        model.task_dict = {"toy": {SPLIT: docs}}
        return model

    return build


def shown(doc: dict) -> list[Image.Image]:
    return [Image.open(doc["image"])]


def asked(number: int, text: str, what: Any, images: Callable[[dict], Any] = shown) -> Instance:
    """A request of `generate_until` where `what` is a mapping, else of `loglikelihood`."""
    kind = "generate_until" if isinstance(what, dict) else "loglikelihood"
    arguments = (text, what, images, number, "toy", SPLIT)
    return Instance(kind, arguments, 0, {"task": "toy", "doc_id": number, "repeats": 1})


def test_lmms_eval_finds_the_model() -> None:
    assert get_model("crop_llava") is CropLlava


def test_answers_are_those_of_one_question_at_a_time(make: Make, docs: list[dict]) -> None:
    """In the order of the requests, whatever their lengths, options and number of images."""
    requests = [
        asked(
            number,
            doc["question"] + " here" * (number % 3),
            {"max_new_tokens": 1 + number % 4, "until": ["\n\n"]},
            (lambda doc: []) if number == 5 else shown,
        )
        for number, doc in enumerate(docs)
    ]
    one = make(region_key="region")
    expected = [one.generate_until([request])[0] for request in requests]
    assert len(set(expected)) > 4
    assert make(region_key="region", batch_size=5).generate_until(requests) == expected
    assert make(batch_size=5).generate_until(requests) != expected


def test_an_answer_ends_before_the_first_stop(make: Make, docs: list[dict]) -> None:
    model = make(region_key="region")
    whole = model.generate_until([asked(0, docs[0]["question"], {"max_new_tokens": 6})])[0]
    first, second, *_ = whole.split()
    assert first != second
    options = {"max_new_tokens": 6, "until": [f" {second}", "not there"]}
    assert model.generate_until([asked(0, docs[0]["question"], options)])[0] == first


@torch.no_grad()
def test_likelihoods_are_sums_over_tokens(make: Make, docs: list[dict], tiny_crop_llava: Path) -> None:
    """Of texts of one to three tokens in one batch, each token after those before it, without padding."""
    checkpoint = Checkpoint.open(tiny_crop_llava)
    model, processor = checkpoint.model(), checkpoint.processor()
    expected, requests = [], []
    for number, doc in enumerate(docs[:8]):
        prompt = f"USER: <image>\n{doc['question']} ASSISTANT:"
        inputs = processor(images=shown(doc), text=[prompt], regions=[doc["region"]], return_tensors="pt")
        length = inputs["input_ids"].shape[1]
        (greedy,) = processor.batch_decode(
            model.generate(**inputs, max_new_tokens=2, do_sample=False)[:, length:], skip_special_tokens=True
        )
        target = [doc["answer"], greedy][number % 2]
        ids, chance, is_greedy = inputs["input_ids"], 0.0, True
        for token in processor.tokenizer(target, add_special_tokens=False)["input_ids"]:
            logits = model(**{**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}).logits[0, -1]
            chance += float(logits.log_softmax(dim=0)[token])
            is_greedy = is_greedy and int(logits.argmax()) == token
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
        expected.append((pytest.approx(-chance, rel=1e-4), is_greedy))
        what = f" {target}" if number < 4 else lambda doc, target=target: target
        requests.append(asked(number, doc["question"], what))
    assert {is_greedy for _, is_greedy in expected} == {True, False}
    found = make(region_key="region", batch_size=8).loglikelihood(requests)
    assert [result.text for result in found] == expected


def test_a_localizers_regions_are_used(
    make: Make, docs: list[dict], tiny_llava: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regions = {(Image.open(doc["image"]).size, doc["question"]): doc["region"] for doc in docs}

    def find(self: object, images: list, questions: list[str], batch_size: int) -> list[LocatedRegion]:
        return [
            LocatedRegion(regions[image.size, question], (0, 0, 1, 1), 1.0)
            for image, question in zip(images, questions, strict=True)
        ]

    monkeypatch.setattr("crop_model.localization.generated.Localizer.predict", find)
    requests = [asked(number, f"<image>{doc['question']}", {"max_new_tokens": 3}) for number, doc in enumerate(docs)]
    requests.append(asked(0, "what ?", {"max_new_tokens": 3}, lambda doc: []))  # nothing to be found
    localized = make(localizer=str(tiny_llava), batch_size=5).generate_until(requests)
    assert localized == make(region_key="region", batch_size=5).generate_until(requests)


def test_the_region_is_of_the_first_image(make: Make, docs: list[dict]) -> None:
    model = make(region_key="region", token_budget=8)
    two = model._question("of <image> and <image>", lambda doc: shown(doc) * 2, 0, "toy", SPLIT)
    inputs = model._inputs([two], [two.messages("<image>")])
    assert inputs["region_mask"].sum(dim=1).tolist() == [inputs["region_mask"][0].sum(), 0]
    assert inputs["region_mask"][0].any()
    assert int((inputs["input_ids"] == model.processor.image_token_id).sum()) == 16


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("what ?", ["image", "image", "what ?"]),
        ("<image>\nwhat <image>", ["image", "what ", "image"]),
        ("what <image> and <image> ?", ["what ", "image", " and ", "image", " ?"]),
    ],
)
def test_images_stand_at_their_marks(make: Make, text: str, kinds: list[str]) -> None:
    question = make()._question(text, lambda doc: shown(doc) * 2, 0, "toy", SPLIT)
    (turn,) = question.messages("<image>")
    assert [part.get("text", part["type"]) for part in turn["content"]] == kinds


@pytest.mark.parametrize(
    ("task_options", "expected"),
    [
        ({}, {"do_sample": False}),
        ({"temperature": 0, "top_p": 1.0, "do_sample": True, "num_beams": 3}, {"do_sample": False, "num_beams": 3}),
        ({"temperature": 0.7, "top_p": None}, {"do_sample": True, "temperature": 0.7}),
        ({"temperature": 0.7, "do_sample": False}, {"do_sample": False}),
        ({"do_sample": True, "max_new_tokens": 5}, {"do_sample": True, "max_new_tokens": 5}),
        ({"image_aspect_ratio": "original"}, {"do_sample": False}),
    ],
)
def test_generation_is_greedy_unless_there_is_a_temperature(task_options: dict, expected: dict) -> None:
    assert generation_options(task_options, "toy") == {"max_new_tokens": 1024, "num_beams": 1, **expected}


def test_stops() -> None:
    assert stop_strings(None) == [] and stop_strings("ab") == ["ab"] and stop_strings(["", "a"]) == ["a"]
    assert cut("one two three", ["three", "two"]) == "one "
    assert cut("one", []) == "one"


def test_shared_length() -> None:
    assert shared_length([1, 2, 3], [1, 2]) == 2
    assert shared_length([1, 2, 3], [1, 4, 3]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "int8"}, "dtype: 'int8' is none of float32"),
        ({"batch_size": "auto"}, "batch_size: expected a whole number of at least 1, got 'auto'"),
        ({"region_key": "region", "localizer": "x"}, "region_key and localizer: one source"),
        ({"localizer": "nowhere"}, "model nowhere: no such folder"),
        ({"token_budget": 1000}, "token_budget"),
    ],
)
def test_wrong_arguments_are_named(make: Make, arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**arguments)


@pytest.mark.parametrize(
    ("number", "text", "images", "message"),
    [
        (0, "what ?", lambda doc: ["film.mp4"], "task toy, doc 0: only images can be shown, got str"),
        (0, "<image> <image>", shown, "task toy, doc 0: 2 <image> in its text, 1 images"),
        (1, "what ?", shown, "task toy, doc 1: it has no key 'region'"),
        (2, "what ?", shown, "task toy, doc 2: region: "),
    ],
)
def test_a_question_that_cannot_be_asked_is_named(
    make: Make, docs: list[dict], number: int, text: str, images: Any, message: str
) -> None:
    model = make(region_key="region")
    without = {key: value for key, value in docs[1].items() if key != "region"}
    model.task_dict = {"toy": {SPLIT: [docs[0], without, {**docs[2], "region": [-9, -9, -5, -5]}]}}
    with pytest.raises(DataError, match=message):
        model.generate_until([asked(number, text, {"max_new_tokens": 1}, images)])


def test_what_is_not_there_says_so(make: Make) -> None:
    with pytest.raises(NotImplementedError, match="one round only"):
        make().generate_until_multi_round([])
    with pytest.raises(ConfigError, match="task toy, doc 0: generation_kwargs: 'seed' is none of"):
        make().generate_until([asked(0, "what ?", {"seed": 1})])


def test_arguments_are_documented() -> None:
    text = (Path(__file__).parents[4] / "docs" / "evaluation.md").read_text()
    assert not [name for name in signature(CropLlava).parameters if f"`{name}`" not in text]
