"""Read annotation files as their owners publish them: records, their conversations and the paths of their images.

Known forms of a record:
    LLaVA      {"image": "a.jpg" or ["a.jpg", ...], "conversations": [{"from": "human", "value": "<image>\nWhat is it?",
               "type": "kind of question, optional"}, {"from": "gpt", "value": "A cat."}, ...]}
    messages   {"images": ["a.jpg", ...], "messages": [{"role": "user", "content": "<image>What is it?"},
               {"role": "assistant", "content": "A cat."}, ...], "objects": {"bbox": [[x1, y1, x2, y2], ...]}}
               a content may also be a list of parts: [{"type": "image"}, {"type": "text", "text": "What is it?"}]

All errors are `DataError`s that name file and record.
"""

from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.common.errors import DataError
from data_prep.files.streams import (
    JsonLine,
    LazyRow,
    Stream,
    errors_as,
    json_lines,
    json_list,
    parquet_rows,
    saved_dataset,
)

from .data_source import existing_paths
from .sample import REJECTED, read_manifest

IMAGE_TAG = "<image>"
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


@dataclass(frozen=True)
class Turn:
    """Hold one question without image tags, its answer, and its type (`kind`) if the record states it."""

    question: str
    answer: str
    kind: str | None


class NoAnswerError(DataError):
    """Report a question without an answer to train on."""


def llava_record(record_id: str, image: str, turns: Iterable[Turn]) -> dict[str, Any]:
    """Return turns about one image as LLaVA writes them; `type` is their kind."""
    utterances: list[dict[str, str | None]] = []
    for turn in turns:
        tag = "" if utterances else f"{IMAGE_TAG}\n"
        utterances.append({"from": "human", "value": tag + turn.question, "type": turn.kind})
        utterances.append({"from": "gpt", "value": turn.answer})
    return {"id": record_id, "image": image, "conversations": utterances}


def read_records(annotations: str, skipped: Container[int] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read (name for messages, record) from a JSON list, JSONL, parquet by path or glob, or a `datasets` folder.

    Args:
        skipped: numbers of records to skip, as of `rejected_records`.
    """
    for number, raw in enumerate(record_stream(annotations)):
        if number not in skipped:
            yield named_record(annotations, number, raw)


def rejected_records(annotations: str, regions: str | None) -> frozenset[int]:
    """Return the numbers of the records in `annotations` that got no region, from its sidecar's rejected.jsonl.

    The set is empty unless the sidecar was derived from this file, whose records the list counts: no sample written
    beside a sidecar was rejected. A duplicate does have a region, that of the first record.
    """
    path = Path(regions or "") / REJECTED
    if regions is None or not path.is_file():
        return frozenset()
    if Path(annotations).name not in read_manifest(Path(regions)).get("inputs", {}):
        return frozenset()
    lines = (line.load() for line in json_lines(path))
    return frozenset(line["record"] for line in lines if line["reason"] != "duplicate")


def named_record(annotations: str, number: int, raw: Any) -> tuple[str, dict[str, Any]]:
    """Return (name for messages, record) of a raw record from `record_stream`; DataError if it is not a mapping."""
    name = f"{annotations}: record {number}"
    with errors_as(name):
        record = raw.load() if isinstance(raw, JsonLine | LazyRow) else raw
    if not isinstance(record, dict):
        raise DataError(f"{name}: expected a mapping")
    return (f"{name} (id {record['id']})" if record.get("id") is not None else name), record


def record_stream(annotations: str) -> Stream:
    """Read the raw records of any form of annotations, as `data_prep.files.streams` passes them on."""
    if Path(annotations).is_dir():
        return saved_dataset(annotations)
    if annotations.endswith(".parquet"):
        return parquet_rows(existing_paths(annotations))
    if annotations.endswith(".jsonl"):
        return json_lines(annotations)
    return json_list(annotations)


def conversation(name: str, record: Mapping[str, Any], images: int) -> tuple[str | None, list[Turn]]:
    """Return the system text and the turns of a record called `name` that has `images` images."""
    entries = record.get("conversations") or record.get("messages") or []
    if not isinstance(entries, list):
        raise DataError(f"{name}: expected a list of questions and answers, got {entries!r}")
    utterances = [_utterance(name, entry) for entry in entries]
    system = utterances.pop(0)[1] if utterances and utterances[0][0] == "system" else None
    tags = sum(text.count(IMAGE_TAG) for role, text, _ in utterances if role == "user")
    if tags not in (0, images):
        raise DataError(f"{name}: {tags} {IMAGE_TAG} in the text for {images} images")
    roles = [role for role, _, _ in utterances]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise DataError(f"{name}: expected questions, each with its answer, got {roles}")
    turns = []
    pairs = zip(utterances[::2], utterances[1::2], strict=True)
    for number, ((_, question, kind), (_, answer, _)) in enumerate(pairs):
        turn = Turn(question.replace(IMAGE_TAG, "").strip(), answer.strip(), kind)
        if not turn.question:
            raise DataError(f"{name}: question {number} has no text")
        if not turn.answer:
            raise NoAnswerError(f"{name}: question {number} has no answer")
        turns.append(turn)
    return system, turns


def _utterance(name: str, entry: Any) -> tuple[str, str, str | None]:
    """Return (role, text, kind) of one entry of a conversation."""
    if isinstance(entry, dict):
        role = ROLES.get(str(entry.get("from") or entry.get("role")))
        text = _text(entry.get("value") or entry.get("content") or "")
        kind = entry.get("type")
        if role is not None and text is not None and isinstance(kind, str | None):
            return role, text, kind
    raise DataError(f"{name}: expected {{from, value}} or {{role, content}} of text and images, got {entry!r}")


def first_text(record: Mapping[str, Any]) -> str | None:
    """Return the first text of a conversation, without image tags, even if the conversation cannot be used."""
    entries = record.get("conversations") or record.get("messages")
    entry = entries[0] if isinstance(entries, list) and entries else None
    text = _text(entry.get("value") or entry.get("content")) if isinstance(entry, dict) else None
    return text.replace(IMAGE_TAG, "").strip() if text else None


def _text(content: Any) -> str | None:
    """Return a content, a text or a list of parts, as text with a tag per image; None if it is neither."""
    if not isinstance(content, list):
        return content if isinstance(content, str) else None
    texts = []
    for part in content:
        match part:
            case {"type": "image"}:
                texts.append(IMAGE_TAG)
            case {"type": "text", "text": str(text)}:
                texts.append(text)
            case _:
                return None
    return "".join(texts)


def image_names(name: str, record: Mapping[str, Any]) -> list[str]:
    """Return paths as the record writes them: `image` (one or a list) or `images`."""
    value = record.get("image") or record.get("images") or []
    names = []
    for item in value if isinstance(value, list) else [value]:
        path = item.get("path") if isinstance(item, dict) and not item.get("bytes") else item
        if not isinstance(path, str):
            raise DataError(
                f"{name}: expected the path of an image, got {type(item).__name__} (embedded images are not read)"
            )
        names.append(path)
    return names
