"""Pushes to a Hub on this machine, each by the command, in a process of its own."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.integration.test_export import STRANGER, ask_checkpoint
from tests.loopback_hub import environment, loopback_hub
from tests.loopback_store import Hub, Repository

pytestmark = pytest.mark.integration

TOKEN = "hf_planted0123456789"
PROJECT = Path(__file__).parents[2]
NAME = "models/owner/name"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with loopback_hub(TOKEN) as running:
        yield running


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A folder that passes for an export, with two large files of 3 MB."""
    folder = tmp_path / "export"
    (folder / ".eval_results").mkdir(parents=True)
    for name in ("README.md", "config.json", "modeling_crop_llava.py", ".eval_results/a.yaml"):
        (folder / name).write_text(f"# {name}\n")
    for number in (1, 2):
        (folder / f"model-{number}.safetensors").write_bytes(bytes([number]) * 3_000_000)
    return folder


def call(hub: Hub, folder: Path, *words: str, token: str | None = TOKEN, name: str = "owner/name") -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "data_prep.push", str(folder), name, *words],
        cwd=PROJECT,
        env=environment(hub, folder.with_name("home"), token),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def push(hub: Hub, folder: Path, *words: str, **options: str | None) -> str:
    """What a push that works prints, on both streams."""
    process = call(hub, folder, *words, **options)  # type: ignore[arg-type]
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert TOKEN not in printed + errors and "signature" not in printed + errors
    return printed + errors


def refused(hub: Hub, folder: Path, *words: str, **options: str | None) -> str:
    """The one line of a push that does not."""
    before = contents(folder)
    process = call(hub, folder, *words, **options)  # type: ignore[arg-type]
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 1, printed + errors
    (line,) = [x for x in errors.splitlines() if x.strip()]
    assert line.startswith("python -m data_prep.push: error: push_to ")
    assert contents(folder) == before
    return line


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def written(hub: Hub) -> list[tuple[str, str]]:
    """The requests that change something, or might."""
    return [(method, path) for method, path in hub.requests if method not in ("GET", "HEAD")]


def weights_hash(folder: Path, number: int) -> str:
    return hashlib.sha256((folder / f"model-{number}.safetensors").read_bytes()).hexdigest()


def test_create_push_and_push_again(hub: Hub, export: Path) -> None:
    said = push(hub, export, "tag=v1")
    assert "owner/name (new, private): 6 files, 6,000,0" in said
    assert hub.repositories[NAME].private
    assert {name: content for name, content in hub.tree(NAME).items() if name != ".gitattributes"} == contents(export)
    assert hub.tree(NAME, "v1") == hub.tree(NAME)
    assert len(hub.repositories[NAME].commits) == 2  # the Hub's own, and one
    assert sorted(hub.received) == sorted((weights_hash(export, number), 3_000_000) for number in (1, 2))

    hub.requests.clear()
    assert "0 files, 0 bytes to send; 6 there; 0 to delete" in push(hub, export, "tag=v1")
    assert written(hub) == [("POST", f"/api/{NAME}/tag/{hub.repositories[NAME].branches['main']}")]
    assert len(hub.repositories[NAME].commits) == 2

    # what differs goes, and what an export has no more, as nothing else does
    (export / "config.json").write_text("{}")
    (export / "model-2.safetensors").rename(export / "model.safetensors")
    hub.repositories[NAME].commit("main", {**hub.tree(NAME), "LICENSE": b"mine"})
    received = list(hub.received)
    assert "2 files, 3,000,002 bytes to send; 4 there; 1 to delete" in push(hub, export)
    assert hub.received == received  # the same content under another name
    assert hub.tree(NAME).keys() == {*contents(export), ".gitattributes", "LICENSE"}
    assert hub.tree(NAME)["config.json"] == b"{}"

    line = refused(hub, export, "tag=v1")
    assert re.search(r"tag v1 is taken, by commit [0-9a-f]{8}", line)
    assert len(hub.tree(NAME, "v1")) == 7  # still the first


def test_a_branch_and_a_public_repository(hub: Hub, export: Path) -> None:
    said = push(hub, export, "revision=runs/7", "private=false")
    assert "owner/name (new, public)" in said
    assert not hub.repositories[NAME].private
    assert hub.tree(NAME).keys() == {".gitattributes"}
    assert hub.tree(NAME, "runs/7").keys() == {*contents(export), ".gitattributes"}
    hub.requests.clear()
    said = push(hub, export, "revision=runs/7")
    assert "owner/name (public): 0 files" in said  # an existing repository stays what it is, and that is said
    assert [path for _, path in written(hub)] == [f"/api/{NAME}/branch/runs/7"]


def test_a_dry_run_lists_and_sends_nothing(hub: Hub, export: Path) -> None:
    said = push(hub, export, "dry_run=true", "tag=v1")
    assert re.search(r"3,000,000 +model-1.safetensors +\(send\)", said)
    assert written(hub) == [] and hub.repositories == {}
    push(hub, export)
    (export / "config.json").write_text("{}")
    (export / "model-1.safetensors").unlink()
    hub.requests.clear()
    said = push(hub, export, "dry_run=true")
    assert re.search(r" 2 +config.json +\(send\)", said)
    assert re.search(r"3,000,000 +model-2.safetensors +\(there already\)", said)
    assert re.search(r"  model-1.safetensors +\(delete\)", said)
    assert written(hub) == []


def test_killed_in_the_middle_of_a_large_file_it_goes_on_where_it_was(hub: Hub, export: Path) -> None:
    first, second = (weights_hash(export, number) for number in (1, 2))
    hub.stall = second
    process = call(hub, export)
    assert hub.stalled.wait(60)
    while (first, 3_000_000) not in hub.received:
        assert process.poll() is None
    process.kill()
    process.communicate()
    assert hub.received == [(first, 3_000_000)]
    assert hub.tree(NAME).keys() == {".gitattributes"}  # one commit, or none
    hub.stall = None
    push(hub, export)
    assert hub.received == [(first, 3_000_000), (second, 3_000_000)]
    assert contents(export).items() <= hub.tree(NAME).items()


def test_cut_connections_and_faults_of_the_hub_are_outlived(hub: Hub, export: Path) -> None:
    hub.faults += [(f"PUT /store/{weights_hash(export, 1)}", 0), ("POST .*/commit/", 0), ("POST .*/create", 503)]
    said = push(hub, export)
    assert hub.faults == []
    assert said.count("the Hub did not answer; try") == 2  # the cut file was sent again by huggingface_hub itself
    assert contents(export).items() <= hub.tree(NAME).items()
    assert len(hub.repositories[NAME].commits) == 2
    assert len(hub.received) == 2


def test_a_commit_whose_answer_was_lost_is_not_made_twice(hub: Hub, export: Path) -> None:
    hub.answers_lost = 1
    push(hub, export)
    assert hub.answers_lost == 0
    assert len(hub.repositories[NAME].commits) == 2


def test_a_bad_token_is_one_line_that_does_not_repeat_it(hub: Hub, export: Path) -> None:
    line = refused(hub, export, token="hf_anothers9876543210")
    assert "the Hub does not accept this login; see `hf auth login` (status 401" in line
    assert "hf_anothers" not in line and "Bearer ***" in line
    assert written(hub) == []


def test_without_a_login_nothing_is_asked(hub: Hub, export: Path) -> None:
    assert "not logged in to the Hub" in refused(hub, export, token=None)
    assert not any(path.endswith("owner/name") for _, path in hub.requests)


def test_names_that_are_taken(hub: Hub, export: Path) -> None:
    push(hub, export)
    for name, files in (("owner/thesis", {"thesis.txt": b"years"}), ("other/mine", contents(export))):
        hub.repositories[f"models/{name}"] = Repository(private=False)
        hub.repositories[f"models/{name}"].commit("main", files)
    before = {name: dict(repository.branches) for name, repository in hub.repositories.items()}
    assert "taken, by something that is no export of this project" in refused(hub, export, name="owner/thesis")
    (export / "config.json").write_text("{}")
    for name in ("other/mine", "other/new"):
        line = refused(hub, export, name=name)
        assert f"push_to {name}: this login may not write there" in line and "(status 403" in line
        assert TOKEN not in line
    assert {name: repository.branches for name, repository in hub.repositories.items()} == before


def test_the_token_is_in_no_file(hub: Hub, export: Path) -> None:
    push(hub, export)
    home = export.with_name("home")
    found = [name for name, content in contents(export.parent).items() if TOKEN.encode() in content]
    assert found == [f"{home.name}/token"]  # where `hf auth login` keeps it
    assert not any(TOKEN.encode() in content for content in hub.tree(NAME).values())


# a stranger's adapter beside the weights; what it computes is compared, not how
PEFT_STRANGER = """
import sys
import torch
from PIL import Image
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

name, image, out = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(name, trust_remote_code=True)
model = PeftModel.from_pretrained(model, name, subfolder="adapter").eval()
processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)
text = "USER: <image>\\nwhat is the digit ? ASSISTANT:"
outputs = {}
for key, region in (("none", None), ("box", [8, 4, 30, 20])):
    inputs = processor(images=[Image.open(image)], text=[text], regions=[region], return_tensors="pt")
    with torch.no_grad():
        outputs[key] = model(**inputs).logits
save_file(outputs, out)
"""


@pytest.mark.parametrize("lora", ["none", "apart"])
def test_an_export_goes_up_and_a_stranger_loads_it_by_its_name(
    lora: str, hub: Hub, tiny_crop_llava: Path, lora_checkpoint: Path, tmp_path: Path
) -> None:
    out, home, image = tmp_path / "out", tmp_path / "home", tmp_path / "image.png"
    checkpoint, stranger = (tiny_crop_llava, STRANGER) if lora == "none" else (lora_checkpoint, PEFT_STRANGER)
    words = [str(checkpoint), str(out), "push_to=owner/name", "tag=v1", f"merge={str(lora == 'none').lower()}"]
    done = subprocess.run(
        [sys.executable, "-m", "train.export", *words],
        cwd=PROJECT,
        env=environment(hub, home, TOKEN),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert TOKEN not in done.stdout + done.stderr
    assert contents(out).items() <= hub.tree(NAME, "v1").items()
    assert not any(TOKEN.encode() in content for content in contents(out).values())

    Image.linear_gradient("L").convert("RGB").resize((40, 24)).save(image)
    asked = subprocess.run(
        [sys.executable, "-I", "-c", stranger, "owner/name", str(image), str(tmp_path / "stranger.safetensors")],
        cwd=tmp_path,
        env=environment(hub, home, TOKEN),
        capture_output=True,
        text=True,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    computed, expected = load_file(tmp_path / "stranger.safetensors"), ask_checkpoint(checkpoint, image)
    for name in ("none", "box"):
        torch.testing.assert_close(computed[name], expected[name], atol=1e-5, rtol=0)
    weights = ["model.safetensors", *(["adapter/adapter_model.safetensors"] if lora == "apart" else [])]
    read = {re.sub("resolve/[0-9a-f]{40}/", "resolve/main/", path) for method, path in hub.requests if method == "GET"}
    assert {f"/owner/name/resolve/main/{file}" for file in weights} <= read


def test_a_data_set_goes_up_as_one(hub: Hub, tmp_path: Path) -> None:
    folder = tmp_path / "regions"
    for name in ("regions/gqa/manifest.json", "regions/gqa/part-00000.parquet", "samples/gqa/part-00000.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode() * 1000)
    push(hub, folder)
    assert hub.tree("datasets/owner/name").keys() == {*contents(folder), ".gitattributes"}
    assert hub.repositories.keys() == {"datasets/owner/name"}
