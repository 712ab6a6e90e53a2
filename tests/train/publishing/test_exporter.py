"""What an export refuses, what its card says, and what an upload is asked to do. No process is started here."""

import re
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from crop_model.compressor import COMPRESSORS
from crop_model.configuration_crop_llava import CropLlavaConfig
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.processing_crop_llava import CropLlavaProcessor
from data_prep.common.errors import RunError
from data_prep.hub.upload import EXPORT
from tests.crop_model.test_travelling_files import FAMILIES, closure
from train.backbones.checkpoint import Checkpoint
from train.export import main
from train.publishing import exporter as export_module
from train.publishing.model_card import write_card

ROW = {
    "method": "region_ratio",
    "trained": True,
    "checkpoint": "runs/plc/final",
    "token_budget": 16,
    "visual_tokens": 16.0,
    "retention_ratio": 0.25,
    "region_source": "oracle",
    "accuracy": 0.975,
    "accuracy_ci95": [0.96, 0.985],
    "relative_accuracy": 0.99,
    "macs": 1e9,
    "kv_bytes": 1e6,
    "ttft_s": 0.01,
    "seed": 0,
}
EVALUATION = {"dataset": "digits", "n": 1000, "rows": [ROW, {**ROW, "checkpoint": "runs/other", "accuracy": 0.5}]}


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A folder that passes for an earlier export."""
    folder = tmp_path / "earlier"
    folder.mkdir()
    for name in ("config.json", "modeling_crop_llava.py"):
        (folder / name).write_text("earlier")
    return folder


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder with somebody's work in it."""
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years")
    return folder


WRONG_CALLS = {
    "no checkpoint": ([], "checkpoint: is required\n.*out: is required"),
    "missing checkpoint": (["GONE", "OUT"], "model .*gone: "),
    "unknown key": (["TINY", "OUT", "pushto=a/b"], "unknown key 'pushto' \\(did you mean 'push_to'"),
    "wrong type": (["TINY", "OUT", "merge=perhaps"], "merge: .*perhaps"),
    "somebody's work": (["TINY", "FOREIGN"], "out: .*foreign holds something that is no export; overwrite=true"),
    "a file": (["TINY", "FOREIGN/thesis.txt"], "out: .*thesis.txt is a file"),
    "the checkpoint itself": (["TINY", "TINY", "overwrite=true"], "is or holds the checkpoint"),
    "above the checkpoint": (["TINY", "TINY/..", "overwrite=true"], "is or holds the checkpoint"),
    "no repository name": (["TINY", "OUT", "push_to=a//b"], "push_to: .*a//b"),
    "nothing to push": (["TINY", "OUT", "tag=v1"], "tag: has no effect without push_to"),
    "missing image": (["TINY", "OUT", "image=gone.png"], "image: no such file: gone.png"),
    "not an image": (["TINY", "OUT", "image=FOREIGN/thesis.txt"], "image: .*thesis.txt"),
    "half a region": (["TINY", "OUT", "region=[1, 2]"], "region: expected x1, y1, x2, y2"),
    "region outside": (["TINY", "OUT", "region=[900, 900, 950, 950]"], r"box .* lies outside its image"),
    "no size": (["TINY", "OUT", "max_shard_size=lots"], "max_shard_size: 'lots' is no size"),
    "no evaluation": (["TINY", "OUT", "evaluation=FOREIGN/thesis.txt"], "evaluation: .*not an evaluation.json"),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_wrong_calls(
    case: str,
    tiny_crop_llava: Path,
    foreign: Path,
    capfd: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def load_no_model(*args: object, **kwargs: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(CropLlavaForConditionalGeneration, "from_pretrained", load_no_model)
    words, message = WRONG_CALLS[case]
    places = {
        "TINY": tiny_crop_llava,
        "FOREIGN": foreign,
        "OUT": foreign.with_name("out"),
        "GONE": foreign.with_name("gone"),
    }
    for name, place in places.items():
        words = [word.replace(name, str(place)) for word in words]
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    lines = [x for x in capfd.readouterr().err.splitlines() if x.startswith("python -m train.export: error: ")]
    assert len(lines) == message.count("\n") + 1
    assert re.search(message, "\n".join(lines)), lines
    assert [path.name for path in foreign.parent.iterdir()] == ["foreign"]
    assert (foreign / "thesis.txt").read_text() == "years"


def test_a_compressor_that_does_not_travel_is_refused(
    tiny_crop_llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = type("Elsewhere", (COMPRESSORS["region_ratio"],), {"__module__": "my_package.elsewhere"})
    monkeypatch.setitem(COMPRESSORS, "region_ratio", elsewhere)
    monkeypatch.setattr(CropLlavaForConditionalGeneration, "from_pretrained", None)
    with pytest.raises(SystemExit) as caught:
        main([str(tiny_crop_llava), str(tmp_path / "out")])
    assert caught.value.code == 2 and list(tmp_path.iterdir()) == []
    assert "compressor_type: 'region_ratio' is not of crop_model" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["earlier", "foreign", "new"])
def test_an_export_takes_the_place_of_an_earlier_one(
    target: str, request: pytest.FixtureRequest, tiny_crop_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "prove", lambda *arguments: 0.0)
    out = tmp_path / "new" if target == "new" else request.getfixturevalue(target)
    main([str(tiny_crop_llava), str(out), *(["overwrite=true"] if target == "foreign" else [])])
    assert not (out / "thesis.txt").exists()
    assert {path.stem for path in out.glob("*.py")} == closure(FAMILIES["crop_llava"])
    assert "earlier" not in (out / "config.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name]
    assert len({path.stat().st_mode for path in out.iterdir() if path.is_file()}) == 1


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """What an export asks of `data_prep.hub.upload`: the check, then the folder's upload."""
    calls: list[tuple] = []
    monkeypatch.setattr(export_module, "prove", lambda *arguments: 0.0)
    monkeypatch.setattr(export_module, "check_push", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(export_module, "push_folder", lambda *arguments: calls.append(arguments))
    return calls


@pytest.mark.parametrize("private", [True, False])
def test_push_uploads_the_folder_and_is_private_by_default(
    private: bool, tiny_crop_llava: Path, tmp_path: Path, asked: list[tuple]
) -> None:
    words = [] if private else ["private=false"]
    main([str(tiny_crop_llava), str(tmp_path / "out"), "push_to=owner/name", *words])
    checked, (folder, arguments, kind) = asked
    assert checked == (arguments, kind)
    assert (arguments.push_to, arguments.private, kind) == ("owner/name", private, EXPORT)
    assert folder == tmp_path / "out"
    assert 'name = "owner/name"' in (tmp_path / "out" / "README.md").read_text()


def test_a_refused_push_is_one_line_and_keeps_the_folder(
    tiny_crop_llava: Path,
    tmp_path: Path,
    asked: list[tuple],
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object) -> None:
        raise RunError("push_to owner/name: the name is taken")

    monkeypatch.setattr(export_module, "push_folder", refuse)
    with pytest.raises(SystemExit) as caught:
        main([str(tiny_crop_llava), str(tmp_path / "out"), "push_to=owner/name"])
    assert caught.value.code == 1
    (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("python -m train.export: error: ")]
    assert "push_to owner/name: the name is taken" in line
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_without_a_login_no_model_is_loaded(
    tiny_crop_llava: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_prep.hub.upload.get_token", lambda: None)
    monkeypatch.setattr(CropLlavaForConditionalGeneration, "from_pretrained", None)
    with pytest.raises(SystemExit) as caught:
        main([str(tiny_crop_llava), str(tmp_path / "out"), "push_to=owner/name"])
    assert caught.value.code == 1
    assert "push_to owner/name: not logged in to the Hub" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def card_parts(checkpoint: Path) -> tuple[CropLlavaConfig, CropLlavaProcessor]:
    opened = Checkpoint.open(checkpoint)
    return opened.config, opened.processor()


def test_the_card_has_the_hubs_metadata_the_table_and_results_of_this_checkpoint(
    tiny_crop_llava: Path, tmp_path: Path
) -> None:
    write_card(
        tmp_path,
        *card_parts(tiny_crop_llava),
        name="owner/name",
        checkpoint="runs/plc/final/",
        has_adapter=False,
        evaluation=EVALUATION,
        base_model="llava-hf/llava-1.5-7b-hf",
        model_license="llama2",
        datasets=["deepcs233/Visual-CoT"],
    )
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "transformers" and card.data.pipeline_tag == "image-text-to-text"
    assert card.data.base_model == "llava-hf/llava-1.5-7b-hf" and card.data.license == "llama2"
    assert card.data.datasets == ["deepcs233/Visual-CoT"]
    assert "16 visual tokens" in card.text and "| 97.5 " in card.text and "adapter" not in card.text
    (path,) = (tmp_path / ".eval_results").iterdir()
    (entry,) = yaml.safe_load(path.read_text())
    assert entry["value"] == 0.975 and entry["dataset"] == {"id": "digits", "task_id": "default"}
    assert "0.9600-0.9850" in entry["notes"]


def test_the_example_of_the_card_is_code(tiny_crop_llava: Path, tmp_path: Path) -> None:
    write_card(tmp_path, *card_parts(tiny_crop_llava), name="owner/name", checkpoint="c", has_adapter=True)
    text = (tmp_path / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    compile(example, "README.md", "exec")
    assert 'PeftModel.from_pretrained(model, name, subfolder="adapter")' in example
    assert not (tmp_path / ".eval_results").exists()
