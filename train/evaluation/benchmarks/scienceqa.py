"""Read ScienceQA: `problems.json` with `pid_splits.json`; the questions of the test split that have an image.

    {"<id>": {"question", "choices": [...], "answer": index, "hint", "image": "image.png" or null, "subject", ...}, ...}
    {"train": [ids], "val": [ids], "test": [ids], ...}

Images are `<id>/image.png`, below the folder of the split. LLaVA reports two numbers; this is its IMG, while the other
one also covers questions without images.
"""

from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase

from data_prep.common.errors import DataError
from data_prep.files.streams import json_list, json_mapping
from data_prep.sources.scienceqa import Problem

from .files import keyed, numbered, official_file
from .question import BenchmarkQuestion, with_options


def read(path: Path) -> Iterator[BenchmarkQuestion]:
    """Read the questions of the test split that have an image, in its order, grouped by subject."""
    file, split_file = official_file(path, "problems.json"), official_file(path, "pid_splits.json")
    problems = {key: (name, problem) for name, key, problem in keyed(file, Problem, json_mapping(file))}
    for entry, key in numbered(split_file, str, json_list(split_file, "test.item")):
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
        name,
        key,
        f"{key}/{image}",
        problem.question,
        (ascii_uppercase[problem.answer],),
        prompt=with_options("\n".join(lines), problem.choices),
        choices=tuple(problem.choices),
        group=problem.subject,
    )
