"""`train.localizer`: what it trains, that it resumes, and what it refuses."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners import lora
from transformers import Qwen2VLForConditionalGeneration

from train.backbones import BACKBONES
from train.backbones.checkpoint import Checkpoint
from train.engine.trainer import PlcTrainer
from train.localizer import main

pytestmark = pytest.mark.xdist_group("localizer_run")

module_group = BACKBONES["qwen2_vl"].module_group


def losses(folder: Path) -> list[float]:
    return [x["loss"] for x in map(json.loads, (folder / "train_log.jsonl").read_text().splitlines()) if "loss" in x]


def test_the_loss_falls_and_tokens_are_counted(localizer_run: Path) -> None:
    written = losses(localizer_run)
    assert len(written) == 60
    assert sum(written[-5:]) < 0.5 * sum(written[:5])
    line = json.loads((localizer_run / "train_log.jsonl").read_text().splitlines()[0])
    assert 4 <= line["visual_tokens_per_sample"] <= 16 and line["mfu"] is None


def test_it_goes_on_from_a_checkpoint_as_it_went(
    localizer_run: Path, localizer_words: Callable[..., list[str]], tmp_path: Path, localizer_long: tuple[str, ...]
) -> None:
    main(localizer_words(tmp_path, *localizer_long, f"resume_from_checkpoint={localizer_run / 'checkpoint-30'}"))
    assert losses(tmp_path) == pytest.approx(losses(localizer_run)[30:], rel=1e-5)
    expected = Checkpoint.open(localizer_run / "final").merged().state_dict()
    for name, tensor in Checkpoint.open(tmp_path / "final").merged().state_dict().items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-6, msg=name)


# ---- what trains, on what


def test_lora_is_in_the_language_model_alone(localizer_trainer: Callable[..., PlcTrainer], tmp_path: Path) -> None:
    trainer = localizer_trainer(tmp_path)
    adapted = {name.partition(".lora_")[0] for name, _ in trainer.model.named_parameters() if ".lora_" in name}
    linears = {name for name, module in trainer.model.named_modules() if isinstance(module, lora.Linear)}
    assert adapted == linears and len(linears) == 2 * 7
    assert all(re.search(r"\.language_model\.layers\.\d\.(self_attn|mlp)\.", name) for name in linears)
    assert {module_group(n) for n, p in trainer.model.named_parameters() if p.requires_grad} == {"lora"}


TRAINED = {
    "adapter and merger": (["projector_learning_rate=1e-2"], {"lora", "projector"}),
    "merger alone": (["lora=null", "projector_learning_rate=1e-2"], {"projector"}),
    "language model": (["lora=null", "full=true", "bf16=true"], {"language_model"}),
    "both whole": (["lora=null", "full=true", "projector_learning_rate=1e-2"], {"language_model", "projector"}),
}


@pytest.mark.parametrize("case", TRAINED)
def test_what_trains_moves_and_the_rest_stays(
    case: str, localizer_trainer: Callable[..., PlcTrainer], tmp_path: Path
) -> None:
    more, groups = TRAINED[case]
    trainer = localizer_trainer(tmp_path, "max_steps=3", "lr_scheduler_type=constant", *more)
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(before[name], p)}
    assert moved == trained
    assert {module_group(name) for name in trained} == groups
    trainer.save_final()
    model = Checkpoint.open(tmp_path / "final").merged()
    ids = torch.arange(12)[None]
    whole = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False).float().eval()  # no autocast
    with torch.no_grad():
        expected = whole(input_ids=ids).logits
        torch.testing.assert_close(model(input_ids=ids).logits, expected, rtol=0, atol=1e-4)


# ---- calls

WRONG_CALLS = {
    "a compressor": (["compressor_type=region_ratio"], "command line: compressor_type: not read by a Qwen2-VL"),
    "packed rows": (["pack_length=4096"], "command line: pack_length: not read by a Qwen2-VL"),
    "jitter": (["region_jitter=0.5"], "command line: region_jitter: not read by a Qwen2-VL"),
    "skipping": (["on_bad_sample=skip"], "on_bad_sample: not read by a Qwen2-VL"),
    "adapter and whole": (["full=true"], "full: lora must be null"),
    "nothing": (["lora=null"], "lora: nothing trains"),
    "too few pixels": (["min_pixels=10"], "min_pixels: 10 is outside 64..1024"),
    "the checkpoint's own template": (["chat_template=null"], "chat template: no {% generation %}"),
    "no model": (["model=gone/nowhere"], "model gone/nowhere: "),
    "a sample too long": (["max_length=40"], "tokens, above max_length 40"),
}


@pytest.mark.parametrize("case", WRONG_CALLS)
def test_wrong_calls(
    case: str, localizer_words: Callable[..., list[str]], tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: Any
) -> None:
    def load_no_model(*args: object, **kwargs: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Qwen2VLForConditionalGeneration, "from_pretrained", load_no_model)
    more, message = WRONG_CALLS[case]
    with pytest.raises(SystemExit) as caught:
        main(localizer_words(tmp_path, *more))
    assert caught.value.code == 2
    (line,) = [x for x in capfd.readouterr().err.splitlines() if x.startswith("python -m train.localizer: error: ")]
    assert message in line


def test_a_question_without_an_image_is_a_failed_run(
    localizer_words: Callable[..., list[str]], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    asked = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "[0, 0, 1, 1]"}]
    (tmp_path / "text.json").write_text(json.dumps([{"conversations": asked}]))
    with pytest.raises(SystemExit) as caught:
        main(localizer_words(tmp_path / "run", f"train_data=[{{annotations: {tmp_path / 'text.json'}}}]"))
    assert caught.value.code == 1
    assert re.search("text.json: record 0.*: no image to find a region in", capfd.readouterr().err)


def test_a_llava_is_a_localizer_too(
    tiny_llava: Path,
    toy_data: Path,
    localizer_words: Callable[..., list[str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture,
) -> None:
    source = f"[{{annotations: {toy_data / 'data.json'}, image_root: {toy_data / 'images'}}}]"
    llava = [f"model={tiny_llava}", "chat_template=null", "compressor_type=none", f"train_data={source}"]
    with pytest.raises(SystemExit):
        main(localizer_words(tmp_path, *llava, "max_pixels=576"))
    assert "max_pixels: not read by a LLaVA" in capfd.readouterr().err
    main(localizer_words(tmp_path, *llava, "lora=null", "full=true"))
    rates = json.loads((tmp_path / "train_log.jsonl").read_text().splitlines()[0])["lr"]
    assert rates == {"language_model": 1e-2}
