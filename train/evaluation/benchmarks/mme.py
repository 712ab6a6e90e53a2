"""Read MME: `MME_Benchmark_release_version`, a folder for each of 14 categories, in one of two layouts.

    <category>/0001.png, 0001.txt, ...                                     most of them
    <category>/images/0001.jpg, ... and questions_answers_YN/0001.txt, ... artwork, celebrity, landmark, posters, scene

A text file has two lines, `question<tab>Yes` and `question<tab>No`; an image's score requires both. Questions end with
`Please answer yes or no.`, which LLaVA's prompts replace by their own instruction.
"""

from collections.abc import Iterator
from pathlib import Path

from data_prep.common.errors import DataError
from data_prep.files.streams import errors_as
from train.evaluation.metrics.mme import COGNITION, PERCEPTION

from .question import BenchmarkQuestion

CATEGORIES = sorted(PERCEPTION + COGNITION)
QUESTIONS_PER_IMAGE = 2
REQUEST = "Please answer yes or no."
_EXTENSIONS = (".jpg", ".png", ".jpeg")


def read(path: Path) -> Iterator[BenchmarkQuestion]:
    """Read the questions of all categories, grouped by category. `path` is also the image root."""
    for category in CATEGORIES:
        folder = path / category
        if not folder.is_dir():
            raise DataError(f"{path}: no folder {category} in it; MME's totals are over {len(CATEGORIES)} categories")
        split_layout = (folder / "questions_answers_YN").is_dir()
        texts = sorted((folder / "questions_answers_YN" if split_layout else folder).glob("*.txt"))
        if not texts:
            raise DataError(f"{folder}: no questions in it")
        for file in texts:
            yield from _questions(path, category, file, folder / "images" if split_layout else folder)


def _questions(root: Path, category: str, file: Path, images: Path) -> Iterator[BenchmarkQuestion]:
    """Read the two questions about one image."""
    with errors_as(str(file)):
        lines = file.read_text(encoding="utf-8").strip().splitlines()
    if len(lines) != QUESTIONS_PER_IMAGE:
        raise DataError(f"{file}: {len(lines)} questions; MME asks {QUESTIONS_PER_IMAGE} about an image")
    image = _image(file, images)
    for number, line in enumerate(lines, start=1):
        question, _, answer = line.strip().rpartition("\t")
        if not question or answer.lower() not in ("yes", "no"):
            raise DataError(f"{file}: line {number}: expected a question, a tab and Yes or No, got {line!r}")
        yield BenchmarkQuestion(
            f"{file}: line {number}",
            f"{category}/{file.stem}/{number}",
            image.relative_to(root).as_posix(),
            question.strip().removesuffix(REQUEST).strip(),
            (answer,),
            group=category,
            image_key=image.name,
        )


def _image(file: Path, images: Path) -> Path:
    for extension in _EXTENSIONS:
        if (image := images / f"{file.stem}{extension}").is_file():
            return image
    raise DataError(f"{file}: no image {file.stem} ({', '.join(_EXTENSIONS)}) in {images}")
