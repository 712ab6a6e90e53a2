"""Read ScienceQA: `problems.json` with `pid_splits.json`; the questions of the test split that have an image.

    {"<id>": {"question", "choices": [...], "answer": index, "hint", "image": "image.png" or null, "subject", ...}, ...}
    {"train": [ids], "val": [ids], "test": [ids], ...}

Images are `<id>/image.png`, below the folder of the split. LLaVA reports two numbers; this is its IMG, while the other
one also covers questions without images.
"""

from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase

from pydantic import TypeAdapter

from data_prep.common.errors import DataError
from data_prep.files.streams import json_list, json_mapping
from data_prep.sources.scienceqa import Problem

from .files import keyed, numbered, official_file
from .question import BenchmarkQuestion, with_options

_SCHEMA, _KEY = TypeAdapter(Problem), TypeAdapter(str)


def read(path: Path) -> Iterator[BenchmarkQuestion]:
    """Read the questions of the test split that have an image, in its order, grouped by subject."""
    file, split_file = official_file(path, "problems.json"), official_file(path, "pid_splits.json")
    problems = {key: (name, problem) for name, key, problem in keyed(file, _SCHEMA, json_mapping(file))}
    for entry, key in numbered(split_file, _KEY, json_list(split_file, "test.item")):
        if key not in problems:
            raise DataError(f"{entry} of test: {key!r} is not a problem of {file}")
        name, problem = problems[key]
        if problem.image is not None:
            yield _question(name, key, problem, problem.image)


def _question(name: str, key: str, problem: Problem, image: str) -> BenchmarkQuestion:
    if not 0 <= problem.answer < len(problem.choices):
        raise DataError(f"{name}: answer {problem.answer} is none of its {len(problem.choices)} choices")
    lines = [f"Context: {problem.hint}", problem.question] if problem.hint else [problem.question]
    return BenchmarkQuestion(
        record=name,
        question_id=key,
        image=f"{key}/{image}",
        prompt=with_options("\n".join(lines), problem.choices),
        question=problem.question,
        targets=(ascii_uppercase[problem.answer],),
        choices=tuple(problem.choices),
        group=problem.subject,
    )
