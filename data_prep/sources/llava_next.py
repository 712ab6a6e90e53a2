"""Read LLaVA-NeXT-Data, `data/train-*.parquet`: conversations with their images in the table.

Columns: id, conversations, data_source, image {bytes, path}; image is null in text-only records. The trainer reads
files: `python -m data_prep.unpack` puts the images below the image root, and the conversations beside them as JSONL.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, NotRequired, cast

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from data_prep.common.errors import DataError
from data_prep.derivation.text_boxes import find_boxes
from data_prep.files.images import read_embedded
from data_prep.files.streams import Stream, parquet_rows
from data_prep.schema.data_source import existing_paths
from data_prep.schema.question import Question

from .base import Embedded, Id, Questions
from .llava_text import LlavaText, Utterance

COLUMNS = ("id", "conversations", "data_source", "image")


class Record(TypedDict):
    id: Id
    conversations: list[Utterance]
    data_source: NotRequired[str | None]
    image: NotRequired[Embedded | None]


@dataclass(frozen=True)
class LlavaNext(LlavaText):
    """Read LLaVA-NeXT-Data: parquet with conversations and images."""

    schema = TypeAdapter(Record)

    def records(self) -> Stream:
        return parquet_rows(existing_paths(self.annotations), COLUMNS, block=1)

    def boxed_records(self, limit: int) -> Iterator[Any]:
        """Yield records with boxes as every reader of conversations does, without reading the image of any other."""
        texts = parquet_rows(existing_paths(self.annotations), ("conversations",))
        for text, row in islice(zip(texts, self.records(), strict=True), limit):
            with suppress(DataError):  # `annotate` rejects it by name
                if find_boxes(str(text.load()["conversations"])):  # str() suffices to find boxes
                    yield row

    def questions(self, record: Mapping[str, Any]) -> Questions:
        image = cast(Embedded | None, record.get("image"))
        if image is None:
            return
        path, header = image.path, None
        if image.data:
            path, header = read_embedded(image.data, path, record["id"])
        for question in super().questions({**record, "image": path}):
            if isinstance(question, Question):
                question.kind = record.get("data_source")
                if header is not None:
                    question.size = header.width, header.height
                    question.flags = [*question.flags, *header.flags]
            yield question
