"""Describe a training's data before its model is loaded: the counts in a line, and one sample as the loss sees it.

train_data: 300 records, 1,500 samples with split_turns: true, 94 steps per epoch, 282 in total; 300 samples
with split_turns: false, 19 steps per epoch, 57 in total
"""

import math
from collections.abc import Sequence
from itertools import groupby

import datasets

from data_prep.common.errors import DataError
from train.arguments.training import PlcTrainingArguments
from train.data.collator import IGNORE_INDEX, Collator
from train.data.samples import SourceCount

TRIES = 8  # samples of which the first usable one with a region is shown


def print_overview(
    samples: datasets.Dataset, counts: Sequence[SourceCount], rows: int, collator: Collator, args: PlcTrainingArguments
) -> None:
    """Print the line and the sample, on the first process only."""
    if args.process_index == 0:
        print(describe_data(counts, rows, args), show_sample(samples, collator), sep="\n", flush=True)


def describe_data(counts: Sequence[SourceCount], rows: int, args: PlcTrainingArguments) -> str:
    """Report records, samples and steps, with and without `split_turns`.

    Args:
        counts: of every source of train_data.
        rows: what an epoch consists of: samples, or packed rows.
        args: batch size, processes and epochs. The steps of the other `split_turns` are left out for packed rows, whose
            number only the lengths of their samples give.
    """
    samples = {True: sum(count.split for count in counts), False: sum(count.whole for count in counts)}
    now, other = args.split_turns, not args.split_turns
    packed = f" in {rows:,} packed rows" if args.pack_length is not None else ""
    text = f"train_data: {sum(count.records for count in counts):,} records, {_samples(samples, now)}{packed}, "
    text += f"{_steps(rows, args)}; {_samples(samples, other)}"
    return text if packed else f"{text}, {_steps(samples[other], args)}"


def _samples(samples: dict[bool, int], split_turns: bool) -> str:
    return f"{samples[split_turns]:,} samples with split_turns: {str(split_turns).lower()}"


def _steps(rows: int, args: PlcTrainingArguments) -> str:
    """Count the updates as transformers' Trainer does."""
    share = rows / (args.train_batch_size * args.world_size)
    batches = math.floor(share) if args.dataloader_drop_last else math.ceil(share)
    steps = max(1, math.ceil(batches / args.gradient_accumulation_steps))
    total = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * steps)
    return f"{steps:,} step{'s' if steps != 1 else ''} per epoch, {total:,} in total"


def show_sample(samples: datasets.Dataset, collator: Collator) -> str:
    """Decode one sample: placeholders counted, what the loss sees between « and », the region in the heading.

    Returns "" if none of the first samples can be used: the training reports why.
    """
    first = samples.select(range(min(TRIES, len(samples))))
    for row in sorted(first, key=lambda row: row["region"] is None):
        try:
            batch = collator([row])
        except DataError:
            continue
        if "bad_samples" not in batch:
            region = "no region"
            if row["region"] is not None:
                region = f"region {[round(side, 1) for side in row['region']]} of {row['width']}x{row['height']}"
            ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
            return f"{row['record']}, {region}, supervised text in « »:\n{_marked(ids, labels, collator)}"
    return ""


def _marked(ids: Sequence[int], labels: Sequence[int], collator: Collator) -> str:
    placeholder, text = collator.processor.image_token_id, ""
    kinds = groupby(zip(ids, labels, strict=True), lambda pair: (pair[0] == placeholder, pair[1] != IGNORE_INDEX))
    for (is_image, supervised), pairs in kinds:
        run = [token for token, _ in pairs]
        piece = f"{collator.processor.image_token}x{len(run)}" if is_image else collator.processor.tokenizer.decode(run)
        text += f"«{piece}»" if supervised else piece
    return text
