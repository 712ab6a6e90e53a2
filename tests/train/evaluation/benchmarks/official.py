"""Small copies of the benchmarks' files in the form in which they are published, two questions or more each.

Each function gives a `Published`: files by path, which a test may damage before it writes them, and paths of images.
"""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from train.evaluation.benchmarks.mme import CATEGORIES
from train.evaluation.benchmarks.source import BenchmarkSource

WIDTH, HEIGHT = 40, 30  # of every image


@dataclass
class Published:
    """Files below the benchmark's folder - JSON values, or text as it is - and images below `image_root`."""

    files: dict[str, Any]
    images: list[str]

    def write(self, folder: Path, name: str, **options: Any) -> BenchmarkSource:
        """The source that names them."""
        for path, content in self.files.items():
            file = folder / "files" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        root = folder / ("files" if name == "mme" else "images")  # MME's images lie among its texts
        root.mkdir(exist_ok=True)
        for image in self.images:
            file = root / image
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(picture("green"))
        return BenchmarkSource(name, str(folder / "files"), str(root), **options)


def picture(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), colour).save(file, "PNG")
    return file.getvalue()


def lines(records: list[Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def ten(answer: str, other: str = "") -> list[str]:
    """Ten annotators, of whom the last may differ."""
    return [answer] * 9 + [other or answer]


def gqa() -> Published:
    asked = {
        "semantic": [{"operation": "select", "dependencies": [], "argument": "scene"}],
        "question": "Is it overcast?",
        "imageId": "n161313",
        "isBalanced": True,
        "answer": "no",
        "annotations": {"answer": {}, "question": {}, "fullAnswer": {}},
        "types": {"detailed": "weatherVerify", "semantic": "global", "structural": "verify"},
        "fullAnswer": "No, it is clear.",
    }
    second = asked | {"question": "Who is there?", "imageId": "n1", "answer": "man", "types": {"structural": "query"}}
    files = {"testdev_balanced_questions.json": {"201307251": asked, "201640614": second}}
    return Published(files, ["n161313.jpg", "n1.jpg"])


def vqav2() -> Published:
    questions = [
        {"image_id": 262148, "question": "Where is he looking?", "question_id": 262148000},
        {"image_id": 262148, "question": "How many people are there?", "question_id": 262148001},
    ]
    annotations = [
        {
            "question_type": "none of the above",
            "multiple_choice_answer": answer,
            "answers": [
                {"answer": text, "answer_confidence": "yes", "answer_id": number}
                for number, text in enumerate(ten(answer, other), start=1)
            ],
            "image_id": 262148,
            "answer_type": kind,
            "question_id": number,
        }
        for number, answer, other, kind in (
            (262148001, "2", "2", "number"),
            (262148000, "down", "at table", "other"),
        )
    ]
    info = {"info": {"year": 2017, "version": "2.0"}, "data_type": "mscoco", "data_subtype": "val2014", "license": {}}
    return Published(
        {
            "v2_OpenEnded_mscoco_val2014_questions.json": info | {"task_type": "Open-Ended", "questions": questions},
            "v2_mscoco_val2014_annotations.json": info | {"annotations": annotations},
        },
        ["COCO_val2014_000000262148.jpg"],
    )


def textvqa() -> Published:
    asked = {
        "question": "what is the brand of this camera?",
        "image_id": "003a8ae2ef43b901",
        "image_classes": ["Cassette deck", "Camera"],
        "image_width": WIDTH,
        "image_height": HEIGHT,
        "answers": ten("dakota", "dakota digital"),
        "question_id": 34602,
        "set_name": "val",
    }
    second = asked | {"question": "what does it SAY?", "question_id": 34603, "answers": ten("digital")}
    third = asked | {"image_id": "97b1112b17015396", "question_id": 34604}
    texts = [
        {"image_id": "003a8ae2ef43b901", "ocr_tokens": ["DAKOTA", "DIGITAL"], "ocr_info": []},
        {"image_id": "97b1112b17015396", "ocr_tokens": [], "ocr_info": []},
    ]
    head = {"dataset_type": "val", "dataset_name": "textvqa", "dataset_version": "0.5.1"}
    return Published(
        {
            "TextVQA_0.5.1_val.json": head | {"data": [asked, second, third]},
            "TextVQA_Rosetta_OCR_v0.2_val.json": head | {"data": texts},
        },
        ["003a8ae2ef43b901.jpg", "97b1112b17015396.jpg"],
    )


def pope() -> Published:
    records = [
        {"question_id": number, "image": "COCO_val2014_000000310196.jpg", "text": text, "label": label}
        for number, (text, label) in enumerate(
            [("Is there a snowboard in the image?", "yes"), ("Is there an umbrella in the imange?", "no")], start=1
        )
    ]
    files = {f"coco_pope_{split}.json": lines(records) for split in ("random", "popular", "adversarial")}
    return Published(files, ["COCO_val2014_000000310196.jpg"])


def mme() -> Published:
    texts, images = {}, []
    for category in CATEGORIES:
        apart = category in ("artwork", "celebrity", "landmark", "posters", "scene")
        folder, extension = ("questions_answers_YN/", "jpg") if apart else ("", "png")
        for stem in ("0001", "0002"):
            texts[f"{category}/{folder}{stem}.txt"] = (
                f"Is this {category}? Please answer yes or no.\tYes\nIs it not?  Please answer yes or no.\tNo\n"
            )
            images.append(f"{category}/{'images/' if apart else ''}{stem}.{extension}")
    return Published(texts, images)


def scienceqa() -> Published:
    problem = {
        "question": "Which property do these three objects have in common?",
        "choices": ["shiny", "slippery", "opaque"],
        "answer": 2,
        "hint": "Select the best answer.",
        "image": "image.png",
        "task": "closed choice",
        "grade": "grade4",
        "subject": "natural science",
        "skill": "Compare properties of objects",
        "lecture": "",
        "solution": "",
        "split": "test",
    }
    problems = {
        "46": problem,
        "4": problem | {"question": "Which figure of speech is used?", "image": None},
        "11": problem | {"question": "Which colony?", "choices": ["Maryland", "Ohio"], "answer": 0, "hint": ""},
        "1": problem | {"question": "Of the training split?", "split": "train"},
    }
    splits = {"train": ["1"], "val": [], "test": ["4", "46", "11"]}
    return Published({"problems.json": problems, "pid_splits.json": splits}, ["46/image.png", "11/image.png"])


MMBENCH_COLUMNS = ("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "split")


def mmbench_row(**cells: Any) -> dict[str, Any]:
    row = {
        "index": 241,
        "question": 'Identify the question\tthat "it" can answer.\nLook twice.',
        "hint": "The passage below describes an experiment.",
        "A": "Do rocks fall?",
        "B": 'Do "birds" fly?',
        "C": "nan",
        "D": "",
        "answer": "B",
        "category": "identity_reasoning",
        "image": base64.b64encode(picture("red")).decode(),
        "source": "scienceqa",
        "split": "dev",
    }
    return row | cells


def mmbench_table(rows: list[dict[str, Any]], columns: tuple[str, ...] = MMBENCH_COLUMNS) -> str:
    """Tabs between cells; a cell with a tab, a quote or a line's end in quotes, as pandas writes it."""

    def cell(value: Any) -> str:
        text = str(value)
        return '"' + text.replace('"', '""') + '"' if set(text) & set('\t"\n') else text

    return "".join("\t".join(map(cell, row)) + "\n" for row in [columns, *[[row[c] for c in columns] for row in rows]])


def mmbench() -> Published:
    rotated = mmbench_row(index=1_000_241, A='Do "birds" fly?', B="Do rocks fall?", answer="A")
    four = mmbench_row(index=7, question="Which?", hint="nan", C="Three", D="Four", answer="D", category="ocr")
    four["image"] = base64.b64encode(picture("blue")).decode()
    return Published({"mmbench_dev_20230712.tsv": mmbench_table([mmbench_row(), rotated, four])}, [])


def vizwiz() -> Published:
    asked = {
        "image": "VizWiz_val_00000000.jpg",
        "question": "Ok. There is another picture I hope it is a better one.",
        "answers": [{"answer": text, "answer_confidence": "yes"} for text in ten("unanswerable", "unsuitable image")],
        "answer_type": "unanswerable",
        "answerable": 0,
    }
    second = asked | {"image": "VizWiz_val_00000001.jpg", "question": "What is this? ", "answer_type": "other"}
    second["answers"] = [{"answer": text, "answer_confidence": "maybe"} for text in ten("soup")]
    return Published({"val.json": [asked, second]}, ["VizWiz_val_00000000.jpg", "VizWiz_val_00000001.jpg"])


def docvqa() -> Published:
    asked = {
        "questionId": 49153,
        "question": "What is the ‘actual’ value per 1000, during the year 1975?",
        "question_types": ["figure/diagram"],
        "image": "documents/pybv0228_81.png",
        "docId": 14465,
        "answers": ["0.28"],
        "data_split": "val",
    }
    second = asked | {"questionId": 24580, "question": "What is the name of the university?"}
    second |= {"answers": ["university of california", "California"], "question_types": ["table/list", "form"]}
    data = {"dataset_name": "SP-DocVQA", "dataset_version": "1.0", "dataset_split": "val", "data": [asked, second]}
    return Published({"val_v1.0_withQT.json": data}, ["documents/pybv0228_81.png"])


def seed_bench() -> Published:
    asked = {
        "answer": "A",
        "choice_a": "One",
        "choice_b": "Two",
        "choice_c": "Three",
        "choice_d": "Four",
        "data_id": "1454426_2591111986",
        "data_type": "image",
        "question": "How many towels are in the image?",
        "question_id": "101669",
        "question_type_id": 5,
    }
    video = asked | {"data_id": "94328.webm", "data_type": "video", "question_id": "v1738", "question_type_id": 10}
    second = asked | {"question": "Where is it?", "question_id": "101670", "question_type_id": 4, "answer": "D"}
    types = {"Instance Location": 4, "Instances Counting": 5, "Action Recognition": 10}
    files = {"SEED-Bench.json": {"questions": [asked, video, second], "question_type": types}}
    return Published(files, ["1454426_2591111986"])


def visual_cot_record(**values: Any) -> dict[str, Any]:
    record = {"dataset": "gqa", "split": "val", "question_id": 7, "box": [10, 5, 30, 20], "answer": "window"} | values
    request = "Please provide the bounding box coordinate of the region that can help you answer the question better."
    image, box = "cot/gqa/2316539.jpg", record.pop("box")
    said = [f"<image>\nWhat is behind it? {request}", "[0.250, 0.250, 0.750, 0.625]", "<image>", record.pop("answer")]
    roles = ("human", "gpt") * 2
    turns = [{"from": role, "value": text} for role, text in zip(roles, said, strict=True)]
    return {**record, "image": [image, f"{image}###{box}"], "conversations": turns}


def visual_cot() -> Published:
    outside = visual_cot_record(question_id=8, box=[50, 40, 60, 50], answer="man")
    over = visual_cot_record(dataset="dude", box=[30, 20, 60, 50], answer="5")
    files = {"gqa.json": [visual_cot_record(), outside], "dude.json": [over], "emotic.json": [visual_cot_record()]}
    return Published(files, ["cot/gqa/2316539.jpg"])


PUBLISHED: dict[str, Callable[[], Published]] = {
    "docvqa": docvqa,
    "gqa": gqa,
    "mmbench": mmbench,
    "mme": mme,
    "pope": pope,
    "scienceqa": scienceqa,
    "seed_bench": seed_bench,
    "textvqa": textvqa,
    "visual_cot": visual_cot,
    "vizwiz": vizwiz,
    "vqav2": vqav2,
}
