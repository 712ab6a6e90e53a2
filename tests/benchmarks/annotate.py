"""How fast, and in how much memory, `data_prep.annotate` works through files of the real sizes.

    .venv/bin/python tests/benchmarks/annotate.py OUT [scale]     tables on stdout; annotate.md says what they mean

Makes a file of LLaVA's mix (665,000 records) and one of Visual-CoT (2,000,000 lines), at a quarter, a half and all of
that, annotates each in two processes, and times beside it one process that parses the file with the same library and
does nothing else. `scale` shrinks all of it. Memory is of all processes together, shared pages counted once (PSS).
"""

import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from data_prep.files.streams import json_lines, json_list

IMAGES = 20_000
WORKERS = 2
POLL_SECONDS = 0.2
MIX_RECORDS, COT_RECORDS = 665_000, 2_000_000
SHARES = (0.25, 0.5, 1.0)
SUFFIX = "Answer the question using a single word or phrase."


def main() -> None:
    folder, scale = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    make_images(folder / "images")
    print(f"{'file':<12}{'records':>10}{'questions':>11}{'MB':>7}{'only read s':>13}{'annotate s':>12}{'ratio':>7}"
          f"{'records/s':>11}{'peak MB':>9}")  # fmt: skip
    for share in SHARES:
        count = round(MIX_RECORDS * scale * share)
        path = write_json_list(folder / "mix.json", mix_records(count))
        report(path, count, f"source=llava_mix annotations={path} image_root={folder / 'images'}", folder)
    for share in SHARES:
        count = round(COT_RECORDS * scale * share)
        path = write_json_lines(folder / "cot.jsonl", cot_records(count))
        report(path, count, f"source=visual_cot annotations={path} images=trust", folder)


def report(path: Path, count: int, words: str, folder: Path) -> None:
    reading = seconds_to_read(path)
    out = folder / "regions"
    shutil.rmtree(out, ignore_errors=True)
    seconds, peak = run([*words.split(), f"out={out}", f"workers={WORKERS}"])
    questions = json.loads((out / "manifest.json").read_text())["rows"]
    size, ratio, rate = path.stat().st_size / 1e6, seconds / reading, count / seconds
    print(
        f"{path.name:<12}{count:>10,}{questions:>11,}{size:>7.0f}{reading:>13.1f}{seconds:>12.1f}{ratio:>7.1f}"
        f"{rate:>11,.0f}{peak / 1e6:>9.0f}",
        flush=True,
    )


def seconds_to_read(path: Path) -> float:
    """One process, every record as a Python object, nothing else."""
    start = time.perf_counter()
    if path.suffix == ".jsonl":
        for line in json_lines(path):
            line.load()
    else:
        for _ in json_list(path):
            pass
    return time.perf_counter() - start


def run(words: list[str]) -> tuple[float, int]:
    """Seconds of the whole command, its start included, and the most memory of all its processes together, in bytes."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "data_prep.annotate", *words], stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        peak = max(peak, memory(psutil.Process(process.pid)))
        time.sleep(POLL_SECONDS)
    if process.returncode:
        raise SystemExit(f"annotate ended with status {process.returncode}")
    return time.perf_counter() - start, peak


def memory(process: psutil.Process) -> int:
    """Memory (PSS) of a process and its children, in bytes."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        try:
            total += each.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


def make_images(folder: Path) -> None:
    """Small JPEGs of three shapes; most are hard links, since only their headers are read."""
    for number in range(IMAGES):
        path = folder / image_name(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        original = folder / image_name(number % 3)
        if number < 3:
            Image.new("RGB", ((640, 480), (480, 640), (500, 375))[number], "gray").save(path)
        elif not path.exists():
            path.hardlink_to(original)


def image_name(number: int) -> str:
    return f"coco/train2017/{number % IMAGES:012d}.jpg"


def mix_records(count: int) -> Iterator[dict[str, Any]]:
    """About 4.5 questions a record, one record in ten with a box, one in sixteen without an image (as in the mix)."""
    rng = random.Random(0)
    for number in range(count):
        turns = []
        for turn in range(rng.randint(1, 8)):
            place = "thing" if rng.random() > 0.1 else f"thing at [{rng.random() / 2:.2f}, 0.30, 0.61, 0.72]"
            question = f"What colour is {place} {turn} of picture {number}?\n{SUFFIX}"
            turns += [
                {"from": "human", "value": question},
                {"from": "gpt", "value": rng.choice(["red", "No", "two cars"])},
            ]
        record: dict[str, Any] = {"id": f"{number:012d}", "conversations": turns}
        if number % 16:
            record["image"] = image_name(number)
            turns[0]["value"] = f"<image>\n{turns[0]['value']}"
        yield record


def cot_records(count: int) -> Iterator[dict[str, Any]]:
    rng = random.Random(0)
    for number in range(count):
        x, y = rng.randint(0, 500), rng.randint(0, 300)
        yield {
            "question": f"What does the sign number {number} on the left of the road say?",
            "answer": "Main Street",
            "image": f"{number % 500_000:012d}.jpg",
            "width": 640,
            "height": 480,
            "bboxs": [[x, y, x + rng.randint(1, 140), y + rng.randint(1, 180)]],
            "dataset": "textvqa",
            "split": "train",
        }


def write_json_list(path: Path, records: Iterator[dict[str, Any]]) -> Path:
    with path.open("w") as file:
        file.write("[")
        for number, record in enumerate(records):
            file.write((", " if number else "") + json.dumps(record))
        file.write("]")
    return path


def write_json_lines(path: Path, records: Iterator[dict[str, Any]]) -> Path:
    with path.open("w") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    return path


if __name__ == "__main__":
    main()
