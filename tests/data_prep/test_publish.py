"""What a published data set holds, that `datasets` and the trainer's reader load it, and what an upload asks for."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import get_dataset_config_names, load_dataset
from huggingface_hub import DatasetCard

from data_prep import publish as publish_module
from data_prep.common.errors import RunError
from data_prep.hub.upload import REGIONS
from data_prep.publish import main
from data_prep.schema.records import conversation, read_records
from data_prep.schema.sample import read_regions
from tests.data_prep.fixtures import annotated, toloka, vqav2


@pytest.fixture(scope="module")
def sidecars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sidecars of VQAv2, which has samples, and Toloka, which has none."""
    folder = tmp_path_factory.mktemp("sources")
    for module in (vqav2, toloka):
        name = module.__name__.rpartition(".")[2]
        place = folder / name
        place.mkdir()
        (place / "excluded").write_text("x\n")
        options = {"out": str(folder / "regions" / name), "exclude_images": [str(place / "excluded")]}
        annotated(module.make(place), place, **options, prompt="{question}\nyes/no")
    return folder / "regions"


@pytest.fixture(scope="module")
def published(sidecars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("published") / "out"
    main([str(out), f"regions={sidecars}/*", "title=Two sources"])
    return out


def test_every_source_loads_as_a_configuration(published: Path, sidecars: Path, tmp_path: Path) -> None:
    assert get_dataset_config_names(str(published)) == ["toloka", "vqav2", "vqav2-samples"]
    for source in ("toloka", "vqav2"):
        loaded = load_dataset(str(published), source, split="train", cache_dir=str(tmp_path / "cache"))
        assert loaded.to_list() == pq.read_table(sidecars / source / "part-00000.parquet").to_pylist()
    samples = load_dataset(str(published), "vqav2-samples", split="train", cache_dir=str(tmp_path / "cache"))
    assert len(samples) == 6
    assert samples[0]["messages"][0]["content"].startswith("<image>\n")


def test_what_is_published_is_a_sidecar_that_fits_its_samples(published: Path) -> None:
    regions = read_regions(published / "regions" / "vqav2")
    records = list(read_records(str(published / "samples" / "vqav2" / "part-*.parquet")))
    assert {record["id"] for _, record in records} == set(regions)
    for name, record in records:
        assert conversation(name, record, 1)[1][0].question == regions[record["id"]].question


def test_nothing_tells_of_this_machines_folders(published: Path, sidecars: Path) -> None:
    texts = [path.read_text() for path in published.rglob("*") if path.suffix in (".json", ".md", ".jsonl")]
    assert len(texts) == 3  # card and manifests; no rejected.jsonl, whose messages name paths
    assert not any(str(sidecars.parent) in text for text in texts)
    arguments = json.loads((published / "regions" / "vqav2" / "manifest.json").read_text())["arguments"]
    assert arguments["annotations"] == "v2_mscoco_train2014_annotations.json"
    assert arguments["exclude_images"] == ["excluded"]
    assert arguments["image_root"] == "images"
    assert arguments["prompt"] == "{question}\nyes/no"


def test_joins_keep_their_prefix(tmp_path: Path) -> None:
    arguments = {"joins": ["coco/train2017=/home/me/regions/vqav2"], "deep": {"path": "/home/me/x/"}, "workers": 2}
    (tmp_path / "manifest.json").write_text(json.dumps({"arguments": arguments}))
    published = json.loads(publish_module.published_manifest(tmp_path))["arguments"]
    assert published == {"joins": ["coco/train2017=vqav2"], "deep": {"path": "x"}, "workers": 2}


def test_only_values_that_name_files_lose_their_folders(tmp_path: Path) -> None:
    arguments = {
        "source": "visual_cot",
        "annotations": "metadata/dude_cot_train.jsonl",
        "folder": "cot/dude",
        "image_root": "data/visual_cot/",
        "exclude_images": ["lists/pope.txt"],
    }
    (tmp_path / "manifest.json").write_text(json.dumps({"arguments": arguments}))
    published = json.loads(publish_module.published_manifest(tmp_path))["arguments"]
    names = {"annotations": "dude_cot_train.jsonl", "image_root": "visual_cot", "exclude_images": ["pope.txt"]}
    assert published == arguments | names
    (tmp_path / "manifest.json").write_text(json.dumps({"arguments": arguments | {"folder": "/home/me/cot"}}))
    assert json.loads(publish_module.published_manifest(tmp_path))["arguments"]["folder"] == "cot"


def test_the_line_of_the_card_loads(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(published.parent)
    card = (published / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert (
        names["regions"].to_list() == pq.read_table(published / "regions" / "toloka" / "part-00000.parquet").to_pylist()
    )
    assert "hf download" not in card


def test_the_card(published: Path) -> None:
    card = DatasetCard.load(published / "README.md")
    data = card.data.to_dict()
    assert data["pretty_name"] == "Two sources"
    assert data["license"] == "other"
    assert data["task_categories"] == ["visual-question-answering"]
    assert data["size_categories"] == "n<1K"
    assert data["source_datasets"] == ["extended|other-toloka", "extended|other-vqav2"]
    tables = " ".join(card.text.split())
    assert "| source | questions | global | human | object_match |" in tables
    assert "| toloka | 5 | 1 | 4 | 0 |" in tables
    assert "| vqav2 | 6 | 2 | 0 | 4 |" in tables
    assert "| no_evidence | 3 | no evidence of a region: the whole image is used as a fallback |" in tables
    assert "| vqav2 | CC BY 4.0 |" in tables
    assert "annotations: DATA/samples/vqav2/part-*.parquet" in card.text
    assert "annotations: DATA/samples/toloka" not in card.text


def test_parts_are_copied_where_they_cannot_be_linked(
    sidecars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError("Invalid cross-device link")

    monkeypatch.setattr(publish_module.os, "link", refuse)
    main([str(tmp_path / "out"), f"regions=[{sidecars / 'toloka'}]"])
    part = "toloka/part-00000.parquet"
    assert (tmp_path / "out" / "regions" / part).read_bytes() == (sidecars / part).read_bytes()


WRONG_CALLS = {
    "no regions": (["OUT"], "regions"),
    "nothing there": (["OUT", "regions=GONE"], "regions: no such folder: .*gone"),
    "no sidecar": (["OUT", "regions=PLAIN"], "plain: no manifest.json, not a region sidecar"),
    "another version": (["OUT", "regions=OLD"], "manifest.json: schema version 0, this program reads 2"),
    "a name that leaves the folder": (["OUT", "regions=ESCAPE"], "manifest.json: source: "),
    "one source twice": (["OUT", "regions=[TOLOKA, COPY]"], "source 'toloka' is .*toloka's already"),
    "somebody's work": (["PLAIN", "regions=TOLOKA"], "out: .*plain exists"),
    "no repository name": (["OUT", "regions=TOLOKA", "push_to=a//b"], "push_to: .*a//b"),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_wrong_calls_are_one_line_and_leave_nothing(
    case: str, sidecars: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words, message = WRONG_CALLS[case]
    (tmp_path / "plain").mkdir()
    shutil.copytree(sidecars / "toloka", tmp_path / "copy")
    manifest = json.loads((sidecars / "toloka" / "manifest.json").read_text())
    for name, changes in (("old", {"schema_version": 0}), ("escape", {"source": "../x"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(json.dumps(manifest | changes))
    before = sorted(tmp_path.iterdir())
    places = {name.upper(): str(tmp_path / name) for name in ("out", "gone", "plain", "old", "escape", "copy")}
    for place, path in {**places, "TOLOKA": str(sidecars / "toloka")}.items():
        words = [word.replace(place, path) for word in words]
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m data_prep.publish: error: ")
    assert re.search(message, line)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("private", [True, False])
def test_push_uploads_the_folder_and_is_private_by_default(
    private: bool, sidecars: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple] = []
    monkeypatch.setattr(publish_module, "check_push", lambda *arguments: asked.append(arguments))
    monkeypatch.setattr(publish_module, "push_folder", lambda *arguments: asked.append(arguments))
    words = [] if private else ["private=false"]
    main([str(tmp_path / "out"), f"regions={sidecars / 'vqav2'}", "push_to=owner/name", *words])
    checked, (folder, arguments, kind) = asked
    assert checked == (arguments, kind)
    assert (arguments.push_to, arguments.private, kind) == ("owner/name", private, REGIONS)
    assert folder == tmp_path / "out"
    assert any(folder.glob(kind.mark))
    assert 'load_dataset("owner/name", "vqav2", split="train")' in (tmp_path / "out" / "README.md").read_text()


def test_a_refused_push_is_one_line_and_keeps_the_folder(
    sidecars: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise RunError("push_to owner/name: the name is taken")

    monkeypatch.setattr(publish_module, "check_push", lambda *arguments: None)
    monkeypatch.setattr(publish_module, "push_folder", refuse)
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / "out"), f"regions={sidecars / 'toloka'}", "push_to=owner/name"])
    assert caught.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "push_to owner/name: the name is taken" in line
    assert (tmp_path / "out" / "README.md").is_file()


def test_without_a_login_nothing_is_written(
    sidecars: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_prep.hub.upload.get_token", lambda: None)
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / "out"), f"regions={sidecars / 'toloka'}", "push_to=owner/name"])
    assert caught.value.code == 1
    assert "push_to owner/name: not logged in to the Hub" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
