"""When does localization pay? Prints the tables of docs/cost.md, by formula; nothing is run or measured.

    python tests/benchmarks/localization_cost.py

The localizer is Qwen2-VL-2B's shape at 336 x 336 pixels (144 visual tokens); the models that answer are LLaVA-1.5-7B
and 13B, all 576 visual tokens against PLC at 64. A text of t tokens is read by both.
"""

from typing import Any

from cost_of_questions import macs_of_questions
from llava_sizes import PATCHES, llava_config
from localization_of_questions import POSITIONS, localize, shape_of_qwen2_vl
from transformers import Qwen2VLConfig

from crop_model.cost.localizer import LocalizerShape
from crop_model.cost.model import ModelShape

TERA, SIDE, BUDGET = 1e12, 336, 64
TEXTS, QUESTIONS = (20, 40, 150, 400), (1, 2, 4, 8, 16, 64)
MODELS = ("7B", "13B")


def llava(size: str, compressor_type: str, budget: int) -> ModelShape:
    """What LLaVA-1.5 of that size costs."""
    return ModelShape.from_config(llava_config(size.lower(), compressor_type, budget))


def qwen2_vl_2b_config() -> Qwen2VLConfig:
    """Qwen2-VL-2B's sizes."""
    text: dict[str, Any] = {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "vocab_size": 151936,
    }
    text |= {"num_attention_heads": 12, "num_key_value_heads": 2}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}}
    vision = {"depth": 32, "embed_dim": 1280, "hidden_size": 1536, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14}
    return Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=True)


def qwen2_vl_2b(side: int = SIDE) -> LocalizerShape:
    """What it costs on square images of that side."""
    return shape_of_qwen2_vl(qwen2_vl_2b_config(), side, side)


def by_text() -> str:
    """One question about one image, by its length."""
    lines = [
        "| LLaVA-1.5 | text tokens | all 576 | PLC at 64 | localizer | decoding alone | PLC + localizer "
        "| sooner, at most |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for size in MODELS:
        for text in TEXTS:
            full, plc = (
                llava(size, *kind).prefill(text).flops for kind in (("none", PATCHES), ("region_ratio", BUDGET))
            )
            found = localize(qwen2_vl_2b(), text)
            both = plc + found.flops
            lines.append(
                f"| {size} | {text} | {full / TERA:.2f} | {plc / TERA:.2f} | {found.flops / TERA:.2f} "
                f"| {2 * found.decoding / TERA:.2f} | {both / TERA:.2f} | {full / both:.2f} |"
            )
    return "\n".join(lines)


def localizer_flops(text: int, questions: int, kept: bool) -> int:
    """Of q questions about one image; its tower and its cache of the image may be kept between them."""
    shape = qwen2_vl_2b()
    first, later = localize(shape, text), localize(shape, text, reused="cache" if kept else "nothing")
    return first.flops + (questions - 1) * later.flops


def of_questions(size: str, text: int, questions: int) -> list[float]:
    """FLOPs a question: all tokens with nothing, the tower, the cache kept; PLC with nothing, with all it can keep."""
    full, plc = llava(size, "none", PATCHES), llava(size, "region_ratio", BUDGET)
    answered = [macs_of_questions(full, text, questions, kept) for kept in ("nothing", "tower", "cache")]
    localized = [localizer_flops(text, questions, kept) for kept in (False, True)]
    compressed = [macs_of_questions(plc, text, questions, kept) for kept in ("nothing", "tower")]
    both = [2 * macs + flops for macs, flops in zip(compressed, localized, strict=True)]
    return [value / questions for value in (*(2 * macs for macs in answered), *both)]


def by_questions(text: int = 40) -> str:
    """Many questions about one image."""
    lines = [
        f"| LLaVA-1.5, {text} text tokens | questions | all 576, nothing reused | tower output reused "
        "| KV cache reused | PLC + localizer, nothing reused | tower outputs and the localizer's KV cache reused |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for size in MODELS:
        for questions in QUESTIONS:
            values = " | ".join(f"{value / TERA:.2f}" for value in of_questions(size, text, questions))
            lines.append(f"| {size} | {questions} | {values} |")
    return "\n".join(lines)


def break_even() -> str:
    """From how many questions about one image on all 576 tokens with a kept cache do less work."""
    found = []
    for size in MODELS:
        for text in (40, 150):
            first = next(q for q in range(1, 1000) if of_questions(size, text, q)[2] < of_questions(size, text, q)[4])
            found.append(f"{size}, {text} text tokens: {first}")
    return "Questions from which on all 576 tokens with their cache kept do less work: " + "; ".join(found)


def weights_read(text: int = 150) -> str:
    """What decoding reads from memory in fp16, one question at a time."""
    lines = ["| | weights of LLM and head read, GB | visual tokens' and text's KV cache, MB |", "|---|---:|---:|"]
    localizer = qwen2_vl_2b()
    passes = POSITIONS[0] + len(POSITIONS)  # the prefill, and one per token or run of known tokens behind it
    weights = passes * (localizer.language_model.linear_macs(1) + localizer.language_model.head_macs(1))
    cache = localizer.language_model.kv_bytes(localizer.visual_tokens + text + POSITIONS[-1])  # without the last index
    rows = [("Qwen2-VL-2B, a box", weights, cache)]
    for size in MODELS:
        for name, shape in (
            ("all 576", llava(size, "none", PATCHES)),
            ("PLC at 64", llava(size, "region_ratio", BUDGET)),
        ):
            llm = shape.language_model
            rows.append((f"{size}, {name}, first token", llm.linear_macs(1) + llm.head_macs(1), shape.kv_bytes(text)))
    lines += [f"| {name} | {2 * weights / 1e9:.1f} | {cache / 1e6:.0f} |" for name, weights, cache in rows]
    return "\n".join(lines)


def larger_image(text: int = 40) -> str:
    """The localizer at 672 x 672 pixels, as Qwen2-VL reads a larger image."""
    found, plc = localize(qwen2_vl_2b(672), text).flops, llava("7B", "region_ratio", BUDGET).prefill(text).flops
    sooner = llava("7B", "none", PATCHES).prefill(text).flops / (plc + found)
    return f"Localizer at 672 x 672, {text} text tokens: {found / TERA:.2f} TFLOPs; with PLC on 7B {sooner:.2f} times"


def main() -> None:
    for part in (by_text, larger_image, by_questions, break_even, weights_read):
        print(f"{part()}\n")


if __name__ == "__main__":
    main()
