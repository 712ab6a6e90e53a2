"""Answer the tasks of lmms-eval 0.7 with a checkpoint (docs/evaluation.md).

python -m lmms_eval --model crop_llava --model_args pretrained=CHECKPOINT[,key=value ...] --tasks gqa --batch_size 16

                            ┌─ none: the whole image
a task's doc ─► images ─────┼─ region_key=KEY: what the doc has under that key, [x1, y1, x2, y2] in pixels, or null
           └─► text         └─ localizer=CHECKPOINT: what a localizer predicts for the task's text
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import tqdm
from lmms_eval.api.instance import GenerationResult, Instance
from lmms_eval.api.model import lmms
from lmms_eval.utils import Collator
from PIL import Image
from torch import Tensor

from crop_model.generation.prompts import encode
from crop_model.regions import Box, RegionError, sanitize_box
from data_prep.common.errors import ConfigError, DataError
from train.backbones.checkpoint import Checkpoint
from train.backbones.localizers import load_localizer
from train.evaluation.arguments import DTYPES
from train.evaluation.vision_reuse import each_image_once

MAX_NEW_TOKENS = 1024  # for a task that sets none, as in lmms-eval's own LLaVA
SAMPLING = ("temperature", "top_p", "top_k")
GENERATION_KEYS = ("max_new_tokens", "do_sample", "num_beams", "repetition_penalty", *SAMPLING)
IGNORED_KEYS = ("image_aspect_ratio",)  # for lmms-eval's own LLaVA; here the processor's `frame` decides


@dataclass(frozen=True)
class LmmsQuestion:
    """Hold a task's question: its name in messages, its text, images in RGB, and the region that its doc gives."""

    name: str
    text: str
    images: list[Image.Image]
    region: Box | None

    def messages(self, image_token: str) -> list[dict[str, Any]]:
        """Build one user turn, with images at their marks in the text, or before the text if it has none.

        Raises:
            DataError: the number of marks is not that of the images.
        """
        texts = [text.strip("\n") for text in self.text.split(image_token)]  # the template sets its own line breaks
        if len(texts) == 1:
            texts = [""] * len(self.images) + texts
        if len(texts) != len(self.images) + 1:
            raise DataError(f"{self.name}: {len(texts) - 1} {image_token} in its text, {len(self.images)} images")
        content: list[dict[str, Any]] = [{"type": "text", "text": texts[0]}]
        for image, text in zip(self.images, texts[1:], strict=True):
            content += [{"type": "image", "image": image}, {"type": "text", "text": text}]
        return [{"role": "user", "content": [part for part in content if part.get("text") != ""]}]


class CropLlava(lmms):
    """Implement lmms-eval's model.

    Args:
        pretrained: any checkpoint with a compressor that `Checkpoint.open` understands, an export among them.
        compressor_type, token_budget: as the checkpoint says unless given.
        region_key, localizer: where regions come from, as above; at most one of them. A region belongs to the first
            image.
        dtype: of the weights, one of `DTYPES`.
        batch_size: number of questions answered together, on each process.
        device: the process's own unless given.

    Raises:
        ConfigError: nothing loadable, or a value that is none of a key's.
    """

    def __init__(
        self,
        pretrained: str,
        compressor_type: str | None = None,
        token_budget: int | None = None,
        region_key: str | None = None,
        localizer: str | None = None,
        dtype: str = "float32",
        batch_size: int | str = 1,
        device: str | None = None,
    ) -> None:
        super().__init__()
        if dtype not in DTYPES:
            raise ConfigError(f"dtype: {dtype!r} is none of {', '.join(DTYPES)}")
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise ConfigError(f"batch_size: expected a whole number of at least 1, got {batch_size!r}")
        if region_key is not None and localizer is not None:
            raise ConfigError("region_key and localizer: one source of regions at a time")
        self.batch_size, self.region_key = int(batch_size), region_key
        self.device = PartialState().device if device is None else torch.device(device)
        given = {"compressor_type": compressor_type, "token_budget": token_budget}
        compressor = {key: value for key, value in given.items() if value is not None}
        checkpoint = Checkpoint.open(pretrained, needs_compressor=True, **compressor)
        self.processor = checkpoint.processor()
        self.model = checkpoint.merged(getattr(torch, dtype), self.device)
        self.vision_tower = checkpoint.backbone.vision_tower(self.model)
        self.localizer = None if localizer is None else load_localizer(localizer, self.model.dtype, self.device)

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Return the answers, each cut before the first of its task's `until` strings."""
        return self._in_batches(requests, self._generate, key=lambda arguments: arguments[1])

    def loglikelihood(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Return -ln p(text | question) for each text, and whether the greedy answer starts with it.

        The sum is over the text's tokens where the chat template puts them, without the end of the answer. lmms-eval
        0.7.3 documents ln p, but takes the least among choices; and a pair reaches its metrics as a pair only in a
        `GenerationResult`, else as text.
        """
        return [GenerationResult(pair) for pair in self._in_batches(requests, self._losses)]

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        raise NotImplementedError("crop_llava: it answers tasks of one round only, no generate_until_multi_round")

    def _in_batches(
        self,
        requests: Sequence[Instance],
        answer: Callable[[Sequence[tuple]], list[Any]],
        key: Callable[[tuple], Mapping[str, Any]] | None = None,
    ) -> list[Any]:
        """Call `answer` on batches, the longest questions first, in each of which `key` is the same."""
        ordered = Collator(
            [request.args for request in requests],
            sort_fn=lambda arguments: -len(arguments[0]),
            group_fn=key or (lambda arguments: {}),
            grouping=True,
        )
        answers: list[Any] = []
        progress = tqdm(total=len(requests), desc="crop_llava")  # accelerate's: of the first process
        with each_image_once(self.vision_tower), torch.inference_mode():
            for batch in ordered.get_batched(n=self.batch_size):
                answers += answer(batch)
                progress.update(len(batch))
        progress.close()
        return ordered.get_original(answers)

    def _generate(self, batch: Sequence[tuple]) -> list[str]:
        questions = [self._question(text, *of_doc) for text, _, *of_doc in batch]
        options = dict(batch[0][1])
        until = stop_strings(options.pop("until", None))
        inputs = self._inputs(questions, [question.messages(self.processor.image_token) for question in questions])
        tokens = self.model.generate(
            **inputs,
            **generation_options(options, questions[0].name),
            pad_token_id=self.processor.tokenizer.pad_token_id,
        )
        texts = self.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [cut(text, until).strip() for text in texts]

    def _losses(self, batch: Sequence[tuple]) -> list[tuple[float, bool]]:
        questions = [self._question(text, *of_doc) for text, _, *of_doc in batch]
        messages = [question.messages(self.processor.image_token) for question in questions]
        targets = [self._target(target, *of_doc) for _, target, _, *of_doc in batch]
        answered = [
            [*prompt, {"role": "assistant", "content": [{"type": "text", "text": target}]}]
            for prompt, target in zip(messages, targets, strict=True)
        ]
        counts = torch.tensor(self._target_lengths(messages, answered), device=self.device)  # (B,)
        longest = int(counts.max())
        inputs = self._inputs(questions, answered, continue_final_message=True)
        logits = self.model(**inputs, logits_to_keep=longest + 1).logits[:, :-1]  # (B, n, V)
        ids = inputs["input_ids"][:, inputs["input_ids"].shape[1] - longest :]  # (B, n): targets end where rows end
        counted = torch.arange(longest, device=self.device) >= longest - counts[:, None]  # (B, n)
        chances = logits.float().log_softmax(dim=-1).gather(2, ids[..., None])[..., 0]  # (B, n)
        losses = -chances.where(counted, 0).sum(dim=1)  # (B,)
        greedy = ((logits.argmax(dim=-1) == ids) | ~counted).all(dim=1)  # (B,)
        return list(zip(losses.tolist(), greedy.tolist(), strict=True))

    def _question(
        self, text: str, doc_to_visual: Callable[[Any], Any], doc_id: int, task: str, split: str
    ) -> LmmsQuestion:
        name = f"task {task}, doc {doc_id}"
        doc = self.task_dict[task][split][doc_id]
        images = doc_to_visual(doc) or []
        for image in images:
            if not isinstance(image, Image.Image):
                raise DataError(f"{name}: only images can be shown, got {type(image).__name__}")
        region = self._region_of_doc(doc, name, images)
        return LmmsQuestion(name, text, [image.convert("RGB") for image in images], region)

    def _region_of_doc(self, doc: Mapping[str, Any], name: str, images: Sequence[Image.Image]) -> Box | None:
        if self.region_key is None or not images:
            return None
        if self.region_key not in doc:
            raise DataError(f"{name}: it has no key {self.region_key!r} (region_key)")
        region = doc[self.region_key]
        if region is None:
            return None
        try:
            return sanitize_box(region, *images[0].size)
        except RegionError as error:
            raise DataError(f"{name}: {self.region_key}: {error}") from None

    def _target(self, target: Any, doc_id: int, task: str, split: str) -> str:
        """Return a text without the blank that tasks put before it: the template has its own."""
        text = target(self.task_dict[task][split][doc_id]) if callable(target) else target
        return str(text).strip()

    def _target_lengths(self, prompts: list[list[dict]], answered: list[list[dict]]) -> list[int]:
        """Count the tokens of each answered conversation after those it shares with the unanswered one."""
        template, tokenizer = self.processor.apply_chat_template, self.processor.tokenizer
        before = tokenizer(template(prompts, tokenize=False, add_generation_prompt=True))["input_ids"]
        whole = tokenizer(template(answered, tokenize=False, continue_final_message=True))["input_ids"]
        return [len(ids) - shared_length(ids, start) for ids, start in zip(whole, before, strict=True)]

    def _inputs(
        self, questions: Sequence[LmmsQuestion], messages: list[list[dict]], continue_final_message: bool = False
    ) -> dict[str, Tensor]:
        """Encode conversations to continue or to answer, padded on the left."""
        has_images = any(question.images for question in questions)
        inputs = encode(
            self.processor,
            messages,
            processor_options={"regions": list(self._regions(questions))} if has_images else None,
            add_generation_prompt=not continue_final_message,
            continue_final_message=continue_final_message,
        )
        return inputs.to(self.device, self.model.dtype)

    def _regions(self, questions: Sequence[LmmsQuestion]) -> Iterable[Box | None]:
        """Yield one region per image."""
        shown = [question for question in questions if question.images]
        regions = [question.region for question in shown]
        if self.localizer is not None:
            texts = [question.text.replace(self.processor.image_token, "").strip() for question in shown]
            located = self.localizer.predict([question.images[0] for question in shown], texts, self.batch_size)
            regions = [prediction.region for prediction in located]
        for question, region in zip(shown, regions, strict=True):
            yield region
            yield from [None] * (len(question.images) - 1)


def shared_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Count the tokens that two texts share at their start."""
    return next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def generation_options(task_options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Convert a task's `generation_kwargs`, without `until`, to those of `generate`: greedy without a temperature.

    Raises:
        ConfigError: a key that is not known here.
    """
    given = {key: value for key, value in task_options.items() if key not in IGNORED_KEYS and value is not None}
    if unknown := sorted(set(given) - set(GENERATION_KEYS)):
        raise ConfigError(f"{name}: generation_kwargs: {unknown[0]!r} is none of {', '.join(GENERATION_KEYS)}")
    temperature = given.get("temperature", 1.0 if given.get("do_sample") else 0.0)
    given["do_sample"] = given.get("do_sample", True) and temperature > 0
    if not given["do_sample"]:
        given = {key: value for key, value in given.items() if key not in SAMPLING}
    return {"max_new_tokens": MAX_NEW_TOKENS, "num_beams": 1, **given}


def stop_strings(until: str | Sequence[str] | None) -> list[str]:
    """Return a task's `until`, one text or several, as a list without empty ones."""
    return [text for text in ([until] if isinstance(until, str) else until or []) if text]


def cut(text: str, until: Iterable[str]) -> str:
    """Cut a text before the first of several strings, if one occurs."""
    return text[: min((text.find(stop) for stop in until if stop in text), default=len(text))]
