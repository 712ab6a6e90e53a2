"""Annotation: the same bytes whatever happens on the way, everything bad named, nothing lost."""

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep import annotate as program
from data_prep.annotate import AnnotateArguments, annotate, main
from data_prep.common.errors import ConfigError, DataError
from data_prep.schema.sample import read_regions, sample_id
from data_prep.sources.llava_mix import LlavaMix
from data_prep.sources.visual_cot import VisualCot
from data_prep.work.shards import Work

RECORDS = 300


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "RECORDS_PER_SHARD", 16)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def cot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Visual-CoT's metadata of 300 lines, some of them bad, some twice, and its three images."""
    folder = tmp_path_factory.mktemp("cot")
    (folder / "images").mkdir()
    for number in range(3):
        Image.new("RGB", (64, 48)).save(folder / "images" / f"{number}.jpg")
    lines = []
    for number in range(RECORDS):
        record: dict[str, Any] = {
            "question": f"What is {number % 250}?",
            "answer": "this",
            "image": f"{number % 3}.jpg",
        }
        record |= {"width": 64, "height": 48, "bboxs": [[number % 60, 5, 63, 40]], "dataset": "gqa"}
        if number % 20 == 7:
            record["image"] = "../secret.jpg"
        lines.append("{" if number % 50 == 3 else json.dumps(record))
    (folder / "cot.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def arguments(cot: Path, out: Path, **options: Any) -> AnnotateArguments:
    defaults = {"source": "visual_cot", "out": str(out), "image_root": str(cot / "images"), "workers": 1}
    return AnnotateArguments(**(defaults | options))


def run(cot: Path, out: Path, **options: Any) -> bool:
    return annotate(arguments(cot, out, **options), VisualCot(str(cot / "cot.jsonl")))


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def undisturbed(cot: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("undisturbed") / "regions"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "RECORDS_PER_SHARD", 16)
        assert run(cot, out)
    return content(out)


# ---- the same bytes


def test_nothing_is_lost(cot: Path, undisturbed: dict[str, bytes]) -> None:
    """Every line is a row or a rejection. 6 lines are no JSON, 15 leave the root (record 253 is both), and of the
    questions 250..299, which repeat 0..49 on another image ((n + 250) % 3 != n % 3), none is a duplicate."""
    manifest = json.loads(undisturbed["manifest.json"])
    assert manifest["rejected"] == {"outside_root": 15, "schema": 6}
    assert manifest["rows"] == RECORDS - 21
    assert manifest["methods"] == {"human": RECORDS - 21}
    assert [json.loads(line)["record"] for line in undisturbed["rejected.jsonl"].splitlines()] == sorted(
        {*range(3, 300, 50), *range(7, 300, 20)}
    )


@pytest.mark.parametrize("workers", [2, 3])
def test_any_number_of_workers(cot: Path, undisturbed: dict[str, bytes], workers: int, tmp_path: Path) -> None:
    """Worker by worker, in one process: what each does alone, together is the same."""
    job = _job(cot, tmp_path / "regions")
    for worker in reversed(range(workers)):
        assert not job.work.finish(samples=True, more={})
        for _ in job.run(worker, workers):
            pass
    assert job.work.finish(samples=True, more={})
    assert content(tmp_path / "regions") == undisturbed


def _job(cot: Path, out: Path) -> program.AnnotateJob:
    options, reader = arguments(cot, out), VisualCot(str(cot / "cot.jsonl"))
    work = Work(out, "visual_cot", program._plan(options, reader), program.RECORDS_PER_SHARD)
    return program.AnnotateJob(work, reader, "visual_cot", (cot / "images").absolute(), options)


def test_machines_share_the_shards(cot: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "regions"
    assert not run(cot, out, shard="2/3")
    assert not run(cot, out, shard="0/3")
    assert not run(cot, out, shard="0/3")  # once more changes nothing
    assert not out.exists()
    assert run(cot, out, shard="1/3")
    assert content(out) == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["regions"]


def test_the_launchers_rank_is_the_shard(cot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert arguments(cot, tmp_path / "regions").share() == (1, 4)
    assert arguments(cot, tmp_path / "regions", shard="2/3").share() == (2, 3)


def _killed(cot: Path, out: Path, delay: float) -> bool:
    """Runs the annotation in a child and kills it after `delay` seconds; whether it was still at work."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if run(cot, out) else 3)
        finally:
            os._exit(4)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def test_killed_at_random_moments(cot: Path, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    """Ten kills that met the run at work - spread over all of it, its assembly included - then one run to the end."""
    rng = random.Random(0)
    start = time.perf_counter()
    run(cot, tmp_path / "timed")
    seconds = time.perf_counter() - start
    kills = attempts = 0
    while kills < 10:
        out = tmp_path / f"regions-{attempts // 4}"  # a new one now and then, so that early kills are met too
        kills += _killed(cot, out, rng.uniform(0, seconds))
        attempts += 1
        assert attempts < 100
    for out in sorted(tmp_path.glob("regions-*[0-9]")) or [tmp_path / "regions-0"]:
        run(cot, out)
        assert content(out) == undisturbed
        assert not out.with_name(f"{out.name}.work").exists()


def test_a_shard_that_is_not_whole_is_noticed(
    cot: Path, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with shards written in place, a kill in the middle of one leaves other bytes or none at all."""

    def in_place(path: Path, content: bytes | str) -> None:
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(data[: len(data) // 2] if path.name == "shard-00004.parquet" else data)
        if path.name == "shard-00004.parquet":
            raise KeyboardInterrupt

    out = tmp_path / "regions"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("data_prep.work.shards.write_atomically", in_place)
        run(cot, out)
    with pytest.raises(Exception, match=r"shard-00004|[Pp]arquet"):
        run(cot, out)


# ---- samples


def test_samples_are_what_the_trainer_reads(cot: Path, tmp_path: Path) -> None:
    out = tmp_path / "regions"
    run(cot, out, prompt="{question}\nAnswer with a single word.")
    table, samples = read_regions(out), pq.read_table(out / "samples").to_pylist()
    assert [row["id"] for row in samples] == list(table)
    for row in samples:
        asked, answered = row["messages"]
        question = asked["content"].removeprefix("<image>\n")
        assert question.endswith("?\nAnswer with a single word.")
        assert (asked["role"], answered["role"], answered["content"], asked["type"]) == (
            "user",
            "assistant",
            "this",
            "gqa",
        )
        assert row["id"] == sample_id("visual_cot", row["images"][0], 0, question) == table[row["id"]].sample_id


def test_duplicates_are_named(cot: Path, tmp_path: Path) -> None:
    lines = (cot / "cot.jsonl").read_text().splitlines(keepends=True)
    twice = tmp_path / "twice.jsonl"
    twice.write_text("".join(lines[10:13] + lines[20:40] + lines[11:12] * 2))
    annotate(arguments(cot, tmp_path / "regions"), VisualCot(str(twice)))
    rejected = [json.loads(line) for line in (tmp_path / "regions" / "rejected.jsonl").read_text().splitlines()]
    assert [
        (line["record"], line["reason"], line["question"]) for line in rejected if line["reason"] == "duplicate"
    ] == [
        (23, "duplicate", "What is 11?"),
        (24, "duplicate", "What is 11?"),
    ]


def test_images_of_evaluation_sets_are_left_out(cot: Path, tmp_path: Path) -> None:
    (tmp_path / "pope.txt").write_text("val2014/1.jpg\n\n")
    run(cot, tmp_path / "regions", exclude_images=[str(tmp_path / "pope.txt")])
    manifest = json.loads((tmp_path / "regions" / "manifest.json").read_text())
    assert manifest["rejected"]["evaluation_image"] > 80
    assert {row.image for row in read_regions(tmp_path / "regions").values()} == {"0.jpg", "2.jpg"}
    (tmp_path / "pope.txt").write_bytes(b"\xe4.jpg")
    with pytest.raises(DataError, match=r"pope.txt: .*utf-8"):
        run(cot, tmp_path / "again", exclude_images=[str(tmp_path / "pope.txt")])


# ---- wrong calls


def test_other_arguments_do_not_mix(cot: Path, tmp_path: Path) -> None:
    out = tmp_path / "regions"
    run(cot, out, shard="0/2")
    with pytest.raises(DataError, match=r"regions.work: shards of other arguments"):
        run(cot, out, images="trust")
    run(cot, out, shard="1/2")
    before = content(out)
    assert run(cot, out)  # complete, nothing to do
    with pytest.raises(DataError, match="regions: holds something else"):
        run(cot, out, images="trust")
    assert content(out) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["source=gqqa"], "source: expected 'aokvqa', 'chartqa', "),
        (["source=visual_cot", "annotations=none.jsonl"], "annotations: no such file or folder: none.jsonl"),
        (["source=visual_cot", "anotations=none.jsonl"], "unknown key 'anotations' (did you mean 'annotations'?)"),
        (["source=visual_cot", "annotations=COT", "shard=3/3"], "shard: expected i/n with i below n, got '3/3'"),
        (["source=visual_cot", "annotations=COT", "--shard", "x"], "shard: expected i/n with i below n, got 'x'"),
        (["source=visual_cot", "annotations=COT", "image_root=nowhere"], "image_root: no such folder: nowhere"),
        (["source=visual_cot", "annotations=COT", "prompt=Why?"], "prompt: has no {question} in it"),
        (["source=visual_cot", "annotations=COT", "workers=0"], "workers: 0 must be at least 1"),
        (
            ["source=visual_cot", "annotations=COT", "exclude_images=[none.txt]"],
            "exclude_images: no such file: none.txt",
        ),
    ],
)
def test_wrong_calls_are_one_line(
    words: list[str], message: str, cot: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = [word.replace("COT", str(cot / "cot.jsonl")) for word in words]
    with pytest.raises(SystemExit) as caught:
        main([f"out={tmp_path / 'regions'}", f"image_root={cot / 'images'}", *words])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_images_need_a_root(cot: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="image_root: needed"):
        arguments(cot, tmp_path / "regions", image_root=None)
    assert run(cot, tmp_path / "regions", image_root=None, images="trust")


def test_a_file_that_ends_in_the_middle(cot: Path, tmp_path: Path) -> None:
    """A JSON list cannot be read past a defect: the run ends, names the file, and keeps the shards before it."""
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "This."}]
    text = json.dumps([{"image": f"{number % 3}.jpg", "conversations": turns} for number in range(40)])
    mix, out = tmp_path / "mix.json", tmp_path / "regions"
    mix.write_text(text[:-700])
    options = arguments(cot, out, source="llava_mix")
    with pytest.raises(DataError, match=r"mix.json: not JSON"):
        annotate(options, LlavaMix(str(mix), frame="padded_square"))
    assert not out.exists()
    assert len(list(out.with_name("regions.work").glob("shard-*.parquet"))) == 2  # of 35 records, two whole shards


def test_help_lists_the_readers_keys(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--help", "source=visual_cot"])
    text = capsys.readouterr().out
    assert "\n  annotations (required)" in text
    assert "\n  workers (" in text
