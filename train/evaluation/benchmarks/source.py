"""Read a benchmark that a configuration names, and check that every question can be answered and scored."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import StrictBool

from data_prep.common.atomic import write_atomically
from data_prep.common.errors import DataError, RecordError
from data_prep.common.fill import Checked
from data_prep.files.images import ImageFiles, image_path, read_embedded
from train.evaluation.benchmarks import BENCHMARKS

from .question import Benchmark, BenchmarkQuestion

WITH_OCR = "_ocr"


@dataclass(frozen=True)
class BenchmarkSource(Checked):
    """Name one benchmark in `BENCHMARKS`, its files and its images.

    `path` is the folder with the files as they are published, or the file of one split. `image_root` is what paths of
    images start from, in LLaVA's scripts `--image-folder`; MMBench's images, which its table holds, are written there.
    `ocr_tokens`: TextVQA's prompts have the text in the image.

    Raises:
        ConfigError: an unknown name, a path that does not exist, `ocr_tokens` of a benchmark without such text.
    """

    name: str
    path: str
    image_root: str
    ocr_tokens: StrictBool = False

    def mistakes(self) -> Iterator[str]:
        if self.name not in BENCHMARKS:
            yield f"name: {self.name!r} is none of {', '.join(BENCHMARKS)}"
        elif self.ocr_tokens and BENCHMARKS[self.name].read_with_ocr is None:
            yield f"ocr_tokens: {self.name} comes without the text in its images"
        for key, value in (("path", self.path), ("image_root", self.image_root)):
            if not value:
                yield f"{key}: expected a path, got {value!r}"
        if self.path and not Path(self.path).exists():
            yield f"path: no such file or folder: {self.path}"

    @property
    def label(self) -> str:
        """Return the benchmark's name in results."""
        return self.name + (WITH_OCR if self.ocr_tokens else "")


def benchmark_of(label: str) -> Benchmark:
    """Return the benchmark with that name in results."""
    return BENCHMARKS[label.removesuffix(WITH_OCR)]


def read_questions(source: BenchmarkSource) -> list[BenchmarkQuestion]:
    """Read all questions with their whole prompts, in the benchmark's order, and write embedded images.

    Raises:
        DataError: a file that is missing or has another form, no question, a question that is repeated or has no
            answer, an image that is missing or outside the root; names file and record.
    """
    benchmark = BENCHMARKS[source.name]
    read = benchmark.read_with_ocr if source.ocr_tokens else None
    files, questions = ImageFiles(source.image_root), dict[str, BenchmarkQuestion]()
    for raw in (read or benchmark.read)(Path(source.path)):
        _check(raw, questions)
        question = raw if raw.embedded is None else _unpacked(raw, raw.embedded, Path(source.image_root))
        files.path(question.record, question.image)
        lines = filter(None, [question.prompt or question.question, benchmark.instruction])
        questions[question.question_id] = replace(question, prompt="\n".join(lines))
    if not questions:
        raise DataError(f"{source.path}: no questions of {source.name}")
    return list(questions.values())


def _check(question: BenchmarkQuestion, earlier: dict[str, BenchmarkQuestion]) -> None:
    """Raise DataError if a question is empty, has no answer or is repeated."""
    if not question.question.strip():
        raise DataError(f"{question.record}: no question")
    if not any(target.strip() for target in question.targets):
        raise DataError(f"{question.record}: no answer, so nothing to score (test splits have none)")
    if question.question_id in earlier:
        first = earlier[question.question_id].record
        raise DataError(f"{question.record}: question {question.question_id} is there already: {first}")


def _unpacked(question: BenchmarkQuestion, data: bytes, root: Path) -> BenchmarkQuestion:
    """Write the question's image to a file, which the collator and the localizer open like any other.

    The file is named by its content: rotations of a question share one, and several tables may share the root.
    """
    try:
        image, _ = read_embedded(data, None, hashlib.sha1(data).hexdigest())
        path = image_path(root.absolute(), image)
    except RecordError as error:
        raise DataError(f"{question.record}: {error}") from None
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    return replace(question, image=image, embedded=None)
