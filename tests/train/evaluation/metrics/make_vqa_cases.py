"""Writes vqa_cases.json: texts and answers with what lmms-eval makes of them.

pip install --no-deps --target FOLDER lmms-eval==0.7.3
PYTHONPATH=FOLDER python -m tests.train.evaluation.metrics.make_vqa_cases
"""

import json
import random
from pathlib import Path
from typing import Any

from tests.train.evaluation.metrics.lmms_reference import (
    VERSION,
    answer_processor,
    package,
    textvqa_accuracy,
    vqav2_accuracy,
)

FILE = Path(__file__).with_name("vqa_cases.json")
MARKS = ';/[]"{}()=+\\_-><@`,?!'
NUMBERS = "none zero one two three four five six seven eight nine ten eleven first".split()  # noqa: SIM905
TEXTS = [
    *(
        "",
        " ",
        "a",
        "the",
        "A",
        "The.",
        "an an an",
        "a.",
        "yes",
        "Yes.",
        "YES!",
        "no, thanks",
        "Two dogs.",
        "two  dogs",
        "2 dogs",
    ),
    *(
        "the man's hat",
        "man's",
        "mans hat",
        "it's",
        "its",
        "It’s",
        "let's go",
        "lets go",
        "she's",
        "shes",
        "I'm",
        "Im",
        "Ive",
        "I've",
    ),
    *(
        "Id've",
        "somebody'd",
        "somebodyd",
        "wheres",
        "where's",
        "'twas",
        "twas",
        "yall",
        "o'clock",
        "10 oclock",
        "5 o'clock",
        "rock'n'roll",
    ),
    *(
        "1,000",
        "1,000 dogs",
        "1,0 (a)",
        "1,000-2,000",
        "10,000,000",
        "1, 2",
        "1 ,2",
        "a,b",
        "a, b",
        "1,a",
        ",5",
        "5,",
        ",",
        ",,",
    ),
    *(
        "3.5",
        "3.",
        ".5",
        "3.a",
        "a.5",
        "U.S.A.",
        "U.S.A",
        "www.a.com",
        "no.",
        "no...",
        "...",
        "1.000.000",
        "$3.50",
        "50%",
        "12:30",
        "12:30 p.m.",
    ),
    *(
        "red/white",
        "red / white",
        "red /white",
        "red/ white",
        "black & white",
        "black and white",
        "ice-cream",
        "t-shirt",
        "t - shirt",
    ),
    *(
        "(left)",
        "left (right)",
        "[x]",
        "{x}",
        "a=b",
        "a+b",
        "a_b",
        "<b>",
        "me@home",
        "`x`",
        '"stop"',
        'the "stop" sign',
        "what?",
        "what ?",
    ),
    *(
        "\n",
        "one\ntwo",
        "one\ttwo",
        " yes ",
        "\tyes\n",
        "none",
        "None of them",
        "zero",
        "a zero",
        "ten",
        "Ten thousand",
        "twenty one",
    ),
    *(
        "." * 40,
        "x." * 40,
        "é",
        "Ä Ö",
        "5°",
        "½",
        "٣,٤",
        "日本",
        "don't know",
        "dont know",
        "don't",
        "cant",
        "cannot",
        "couldnt've",
    ),
]
LETTERS = [
    "dog",
    "Red",
    "the",
    "A",
    "an",
    "3",
    "1,000",
    "2.5",
    "cant",
    "where's",
    "two",
    "None",
    " ",
    "  ",
    "\n",
    ".",
    "'s",
    *MARKS,
]


def texts(contractions: dict[str, str]) -> list[str]:
    """What to normalise: hand-picked, every mark in five places, numbers, contractions, and random pieces."""
    marked = [
        form.format(mark) for mark in MARKS for form in ("red{}blue", "red {}blue", "red{} blue", "{}red", "1,000{}red")
    ]
    pieces = random.Random(0)
    drawn = ["".join(pieces.choices(LETTERS, k=pieces.randint(1, 7))) for _ in range(200)]
    words = [*NUMBERS, *contractions, *contractions.values()]
    return list(dict.fromkeys([*TEXTS, *marked, *words, *drawn]))


def questions() -> list[tuple[str, list[str]]]:
    """Answers and ten annotators': every number of matches, ties, and spellings that only normalising makes equal."""
    same = ("two", "2", "Two.", "a two"), ("the red", "Red", "red!", "red"), ("dont", "don't", "Dont", "DONT")
    draws = random.Random(1)
    counted = [(forms[0], ["x"] * (10 - m) + draws.choices(forms, k=m)) for forms in same for m in range(11)]
    tied = [(answer, ["red"] * 5 + ["blue"] * 5) for answer in ("red", "blue", "red blue", "")]
    words = ["red", "Red", "the red", "2", "two", "1,000", "1000", "man's", "mans", "yes", "no"]
    drawn = [(draws.choice(words), draws.choices(words, k=10)) for _ in range(40)]
    return counted + tied + drawn


def one_line(text: str) -> str:
    """What its VQAv2 task does before it normalises."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def normalized(folder: Path) -> list[list[str]]:
    """[text, by its TextVQA task, by its VQAv2 task]."""
    processor = answer_processor(folder)()
    return [
        [text, processor(text), processor.process_digit_article(processor.process_punctuation(one_line(text)))]
        for text in texts(processor.CONTRACTIONS)
    ]


def scored(folder: Path) -> list[list[Any]]:
    """[answer, targets, score of its TextVQA task, score of its VQAv2 task]."""
    return [
        [answer, targets, textvqa_accuracy(folder, answer, targets), vqav2_accuracy(folder, answer, targets)]
        for answer, targets in questions()
    ]


def one_a_line(cases: list[list[Any]]) -> str:
    """A JSON list with a line a case."""
    return "[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]"


def main() -> None:
    """Write the file."""
    folder = package()
    if folder is None:
        raise SystemExit("lmms-eval is not installed")
    text = f"""{{
"source": "lmms-eval {VERSION}",
"normalize": {one_a_line(normalized(folder))},
"accuracy": {one_a_line(scored(folder))}
}}
"""
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
