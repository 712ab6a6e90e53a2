"""Read LLaVA-1.5's instruction mix, `llava_v1_5_mix665k.json`, and any file of its form.

A JSON list of {"id", "image"?, "conversations": [{"from": "human" | "gpt", "value"}, ...]}; text-only records have no
`image`. Ids are not unique and are not used.
"""

from dataclasses import dataclass
from typing import NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from .llava_text import LlavaText, Utterance


class Record(TypedDict):
    image: NotRequired[str | list[str] | None]
    conversations: list[Utterance]


@dataclass(frozen=True)
class LlavaMix(LlavaText):
    """Read LLaVA's instruction mix, a JSON list of conversations."""

    licence = "CC BY 4.0; answers of GPT-4 fall under OpenAI's terms"
    schema = TypeAdapter(Record)
