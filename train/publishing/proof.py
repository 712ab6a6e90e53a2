"""Answer one request with an export in a process that cannot import this project.

    python -I export_proof.py EXPORT REQUEST          writes REQUEST/computed.safetensors

`train.export` starts it in a separate process, which uses what any user has: torch, transformers, PEFT for an adapter.

    REQUEST/image.png, request.json {"question", "region"}
"""

import json
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file

PROJECT = ("crop_model", "data_prep", "train")
ADAPTER = "adapter"  # folder of an export whose LoRA was not merged
COMPUTED = "computed.safetensors"


class Absent(MetaPathFinder):
    """Hide this project's packages, however they are installed."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> None:
        if fullname.partition(".")[0] in PROJECT:
            raise ModuleNotFoundError(f"No module named {fullname!r}: an export must not need it", name=fullname)


@torch.inference_mode()
def compute(model: Any, processor: Any, request: Path) -> dict[str, torch.Tensor]:
    """Compute a request: return the processor's outputs by name, and logits (1, L, V) in fp32."""
    query = json.loads((request / "request.json").read_text(encoding="utf-8"))
    with Image.open(request / "image.png") as file:
        image = file.convert("RGB")
    content = [{"type": "image", "image": image}, {"type": "text", "text": query["question"]}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        processor_kwargs={"regions": [query["region"]], "return_tensors": "pt"},
    )
    computed = dict(inputs)
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    return {**computed, "logits": model(**inputs).logits.float()}


def main(export: Path, request: Path) -> None:
    """Load the export with Auto classes alone and compute the request."""
    sys.meta_path.insert(0, Absent())
    from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: PLC0415 - after the project is hidden

    model: Any = AutoModelForImageTextToText.from_pretrained(export, trust_remote_code=True, dtype="auto")
    if (export / ADAPTER).is_dir():
        from peft import PeftModel  # noqa: PLC0415 - only where there is an adapter

        model = PeftModel.from_pretrained(model, export / ADAPTER, autocast_adapter_dtype=False)
    processor = AutoProcessor.from_pretrained(export, trust_remote_code=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in compute(model.eval(), processor, request).items()},
        request / COMPUTED,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
