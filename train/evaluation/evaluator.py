"""Answer and measure the rows of an evaluation, one after the other; rows that share a model follow each other.

rows ─► open all checkpoints ─► for each: load model and localizer, unless a row before did
                                     └─► answer all questions ─► accuracy, cost, time ─► evaluation.json and .md
                                                  └─► predictions-<row>.jsonl
"""

import hashlib
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, tqdm
from torch import Tensor

from crop_model.generation.prompts import generate_greedily
from crop_model.generation.timing import wait_for
from crop_model.patches import patch_mask
from data_prep.common.errors import RunError
from train.arguments.data import DataArguments
from train.backbones.localizers import localizer_cost
from train.checkpoints.config_file import write_config
from train.data.samples import file_stamps

from .answer_cache import AnswerCache, remove_answers
from .arguments import EvaluateArguments, RowSpec
from .benchmark_scores import Scored
from .loaded_models import LoadedModels, in_order
from .localization import LocatedRow, measures, measures_text
from .metrics.matching import exact_match
from .prediction import Prediction, by_benchmark, clear_predictions, write_predictions
from .questions import QuestionsByLabel, load_questions, read_benchmarks, scored
from .region_choice import choose_region
from .report import describe_row, report_text, write_report
from .vision_reuse import each_image_once

ARGUMENTS_FILE = "evaluation.yaml"  # not config.yaml, which in a run's folder is the training's

TTFT_WARMUP = 2


class Evaluator:
    """Answer and measure one row of the table."""

    def __init__(
        self,
        spec: RowSpec,
        arguments: EvaluateArguments,
        data: DataArguments,
        questions: QuestionsByLabel,
        loaded: LoadedModels,
    ) -> None:
        self.spec, self.arguments, self.loaded = spec, arguments, loaded
        self.checkpoint, self.processor = loaded.opened(spec)
        self.model, self.device = loaded.model(spec), PartialState().device
        self.collator = self.checkpoint.backbone.collator(self.processor, data.max_image_pixels)
        self.samples = load_questions(arguments, data, questions, self.processor)
        self.located: dict[str, LocatedRow] = {}
        if spec.localizer is not None:
            self.located = loaded.located(spec.localizer, self.samples, self.collator, arguments.batch_size)

    def predictions(self) -> list[Prediction]:
        """Return every question's answer in the data's order, the same on every process."""
        state = PartialState()
        order, size = self._order(), self.arguments.batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        answers = AnswerCache(Path(self.arguments.output_dir), self._made_of())
        # the first process decides, so that all agree on what remains
        (stored,) = broadcast_object_list([answers.read() if state.is_main_process else {}])
        remaining = [number for number in range(len(batches)) if number not in stored]
        mine = remaining[state.process_index :: state.num_processes]
        answered = []
        vision_tower = self.checkpoint.backbone.vision_tower(self.model)
        with each_image_once(vision_tower), self.spec.training_free().applied(self.model):
            for number in tqdm(mine, desc=str(self.spec.checkpoint), leave=False):  # accelerate's: of the first process
                answered += (batch := self._answer(batches[number]))
                answers.add(number, batch)
        answered = gather_object(answered) + [prediction for batch in stored.values() for prediction in batch]
        predictions = sorted(answered, key=lambda prediction: prediction.index)
        if [prediction.index for prediction in predictions] != list(range(len(self.samples))):
            raise RunError(f"{self.arguments.output_dir}: the stored answers do not fit the questions")
        return predictions

    def _made_of(self) -> dict[str, Any]:
        """Collect what the answers follow from, for their key."""
        names = [name for name in (self.spec.checkpoint, self.spec.localizer) if name is not None]
        rows = [self._question(index) for index in range(len(self.samples))]
        keys = ("sample_id", "messages", "images", "region", "answer", "targets", "choices", "group", "image_key")
        questions = hashlib.sha256(json.dumps([[row.get(key) for key in keys] for row in rows]).encode()).hexdigest()
        return {
            "row": asdict(self.spec),
            "files": [file_stamps(f"{name}/*") for name in names],
            "questions": questions,
            "batch_size": self.arguments.batch_size,
            "max_new_tokens": self.arguments.max_new_tokens,
            "dtype": self.arguments.dtype,
        }

    def _order(self) -> list[int]:
        """Put questions about one image together, and images by their longest question, which keeps padding low."""
        images, lengths = ["\n".join(paths) for paths in self.samples["images"]], self.samples["length"]
        longest: dict[str, int] = {}
        for image, length in zip(images, lengths, strict=True):
            longest[image] = max(length, longest.get(image, 0))
        return sorted(range(len(images)), key=lambda index: (longest[images[index]], images[index]))

    def time_to_first_token(self) -> float | None:
        """Measure the median seconds from a preprocessed question to its first token, after a warm-up.

        A batch is one question. If a localizer predicts the regions, its call counts, from the opened image on.
        """
        count = min(self.arguments.ttft_samples, len(self.samples))
        if count == 0:
            return None
        localizer = None if self.spec.localizer is None else self.loaded.localizer(self.spec.localizer)
        rows = [self._question(index) for index in range(count)]
        calls = [(self._batch([row]), self.collator.open_images(row)[:1], row["question"]) for row in rows]
        seconds = []
        for batch, images, question in calls[:1] * TTFT_WARMUP + calls:
            wait_for(self.device)
            start = time.perf_counter()
            if localizer is not None:
                localizer.predict(images, [question] * len(images))
            with self.spec.training_free().applied(self.model):
                self._generate(batch, max_new_tokens=1)
            wait_for(self.device)
            seconds.append(time.perf_counter() - start)
        return statistics.median(seconds[TTFT_WARMUP:])

    def _answer(self, indices: Sequence[int]) -> list[Prediction]:
        rows = [self._question(index) for index in indices]
        batch = self._batch(rows)
        tokens = self._generate(batch, self.arguments.max_new_tokens)
        answers = [answer.strip() for answer in self.processor.batch_decode(tokens, skip_special_tokens=True)]
        visual = (batch["input_ids"] == self.processor.image_token_id).sum(dim=1)  # (B,)
        text = batch["attention_mask"].sum(dim=1) - visual  # (B,)
        return [
            Prediction(
                index=index,
                sample_id=row["sample_id"],
                kind=row["kind"],
                question=row["question"],
                target=row["answer"],
                answer=answer,
                correct=exact_match(answer, row["answer"]) if score is None else score.score == 1,
                region=self.collator.region(row),
                annotated_patches=self._region_patches(self.samples[index]),
                images=len(row["images"]),
                visual_tokens=visual_tokens,
                text_tokens=text_tokens,
                benchmark=row.get("benchmark"),
                scored=score,
            )
            for index, row, answer, score, visual_tokens, text_tokens in zip(
                indices, rows, answers, map(scored, rows, answers), visual.tolist(), text.tolist(), strict=True
            )
        ]

    def _question(self, index: int) -> dict[str, Any]:
        """Return a question with the region that the row's source gives."""
        row = self.samples[index]
        if self.spec.localizer is None:
            seed_key, size = f"{self.spec.seed}:{row['sample_id']}", (row["width"], row["height"])
            return {**row, "region": choose_region(self.spec.region_source, row["region"], *size, seed_key)}
        if row["sample_id"] not in self.located:  # no image
            return {**row, "region": None}
        located = self.located[row["sample_id"]]
        return {**row, "region": located.prediction.region, "width": located.width, "height": located.height}

    def _region_patches(self, row: Mapping[str, Any]) -> int:
        """Count the patches of a question's region: 0 if it has none, or preprocessing cuts it off."""
        box = self.collator.region(row)
        unit = None if box is None else self.processor.geometry.to_unit(box, row["width"], row["height"])
        return int(patch_mask(unit, self.processor.patch_grid, self.processor.region_grid).sum())

    def _batch(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        batch = {name: tensor.to(self.device) for name, tensor in self.collator.prompts(rows).items()}
        if "pixel_values" in batch:
            batch["pixel_values"] = batch["pixel_values"].to(self.model.dtype)
        return batch

    @torch.inference_mode()
    def _generate(self, batch: Mapping[str, Tensor], max_new_tokens: int) -> Tensor:
        """Return greedy answers (B, new tokens)."""
        return generate_greedily(self.model, batch, self.processor.tokenizer.pad_token_id, max_new_tokens)


def evaluate_row(
    spec: RowSpec, arguments: EvaluateArguments, data: DataArguments, questions: QuestionsByLabel, loaded: LoadedModels
) -> tuple[list[Prediction], dict[str, Any] | None]:
    """Evaluate one row; return its predictions and, on the first process, its row of evaluation.json."""
    evaluator = Evaluator(spec, arguments, data, questions, loaded)
    predictions, row = evaluator.predictions(), None
    if PartialState().is_main_process:  # the others wait, so that nothing disturbs the clock
        ttft_s = evaluator.time_to_first_token()
        row = describe_row(spec, evaluator.checkpoint, predictions, ttft_s, arguments.torch_dtype)
        if spec.localizer is not None:
            row |= localizer_cost(loaded.localizer(spec.localizer), row["text_tokens"])
            loaded.set_aside(spec.localizer)
        annotated = evaluator.samples
        if arguments.benchmarks:  # a question without a region is one that nobody annotated
            annotated = annotated.filter(lambda region: region is not None, input_columns="region")
        if evaluator.located and len(annotated):
            row["localization"] = measures(annotated, evaluator.located)
            print(measures_text(row["localization"]))
    PartialState().wait_for_everyone()
    return predictions, row


def evaluate(arguments: EvaluateArguments, data: DataArguments) -> dict[str, Any]:
    """Evaluate all rows and write the results.

    Returns:
        What evaluation.json holds; nothing on processes other than the first.

    Raises:
        ConfigError: no questions, or those of two kinds, or as `LoadedModels`.
    """
    questions = read_benchmarks(arguments, data)
    specs = arguments.specs()
    loaded = LoadedModels(specs, arguments.torch_dtype)
    state = PartialState(cpu=not torch.cuda.is_available())  # joins the launcher's processes; shared from here on
    folder = Path(arguments.output_dir)
    if state.is_main_process:
        write_config(folder / ARGUMENTS_FILE, arguments, data)
        clear_predictions(folder)
        if not arguments.resume:
            remove_answers(folder)
    state.wait_for_everyone()
    dataset = arguments.dataset or "+".join([*questions, *(Path(source.annotations).stem for source in data.eval_data)])
    done: dict[int, tuple[dict[str, Any], Scored]] = {}
    result: dict[str, Any] = {}
    for position, number in enumerate(order := in_order(specs)):
        predictions, row = evaluate_row(specs[number], arguments, data, questions, loaded)
        loaded.keep_for([specs[later] for later in order[position + 1 :]])
        if row is not None:
            done[number] = row, by_benchmark(predictions)
            write_predictions(folder, number, row, predictions)
            rows, answers = [done[n][0] for n in sorted(done)], [done[n][1] for n in sorted(done)]
            missing = len(specs) - len(rows)
            result = write_report(folder, dataset, len(predictions), rows, arguments.dtype, missing, answers)
    if state.is_main_process:
        print(report_text(result))
    return result
