"""Read MMBench: `mmbench_dev_20230712.tsv` or another of its tables, with the images in base64 in a column.

    index  question  hint  A  B  C  D  answer  category  image  ...

Circular evaluation: a question occurs once for each rotation of its options, and its index increases by 1,000,000 each
time. As in LLaVA's code, a cell that is empty, `nan` or `none` is no hint or option. Tables of the test split lack
answers.
"""

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.csv
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter

from data_prep.common.errors import DataError
from data_prep.files.streams import errors_as

from .files import checked_letter, official_file, parsed
from .question import BenchmarkQuestion, with_options

LETTERS = ("A", "B", "C", "D")
BLOCK = 64 * 2**20  # bytes read at once; a row must be smaller

Cell = Annotated[str | None, BeforeValidator(lambda text: None if str(text).lower() in ("", "nan", "none") else text)]


class Record(BaseModel):
    index: int = Field(ge=0)
    question: str = Field(min_length=1)
    hint: Cell = None
    a: Cell = Field(default=None, alias="A")
    b: Cell = Field(default=None, alias="B")
    c: Cell = Field(default=None, alias="C")
    d: Cell = Field(default=None, alias="D")
    answer: str = ""
    category: Cell = None
    image: str

    @property
    def choices(self) -> tuple[str, ...]:
        """Return the options before the first missing one."""
        cells = [self.a, self.b, self.c, self.d]
        count = cells.index(None) if None in cells else len(cells)
        return tuple(cell for cell in cells[:count] if cell is not None)


_COLUMNS = [field.alias or name for name, field in Record.model_fields.items()]


def read(path: Path) -> Iterator[BenchmarkQuestion]:
    """Read the questions of the table `path`, or of the folder's `mmbench_dev_20230712.tsv`, grouped by category."""
    file, schema = official_file(path, "mmbench_dev_20230712.tsv"), TypeAdapter(Record)
    for number, cells in enumerate(_rows(file), start=1):
        name = f"{file}: row {number}"
        row = parsed(schema, cells, name)
        if not row.choices:
            raise DataError(f"{name}: index {row.index} has no options")
        yield BenchmarkQuestion(
            name,
            str(row.index),
            "",
            row.question,
            (checked_letter(name, row.answer.strip(), len(row.choices)),),
            prompt=with_options("\n".join(filter(None, [row.hint, row.question])), row.choices),
            choices=row.choices,
            group=row.category,
            embedded=_decoded(name, row.image),
        )


def _rows(file: Path) -> Iterator[dict[str, str]]:
    """Read rows as text, with the known columns only."""
    texts = pa.csv.ConvertOptions(column_types=dict.fromkeys(_COLUMNS, pa.string()))
    parsing = pa.csv.ParseOptions(delimiter="\t", newlines_in_values=True)
    with errors_as(str(file)), pa.csv.open_csv(file, pa.csv.ReadOptions(block_size=BLOCK), parsing, texts) as table:
        if missing := {"index", "question", "image"} - set(table.schema.names):
            raise DataError(f"{file}: no column {', '.join(sorted(missing))}")
        for batch in table:
            known = batch.select([name for name in _COLUMNS if name in table.schema.names])
            yield from known.to_pylist()


def _decoded(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{name}: image: not base64: {error}") from None
