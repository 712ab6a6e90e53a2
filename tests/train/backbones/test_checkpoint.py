"""Open a checkpoint of any backbone by its name, a made-up one among them, and what is refused."""

import ast
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedConfig

import train
from crop_model.configuration_crop_llava import CropLlavaConfig
from data_prep.common.errors import ConfigError
from train.backbones import BACKBONES
from train.backbones.base import Backbone
from train.backbones.checkpoint import Checkpoint
from train.checkpoints import loading


class MadeUpConfig(LlavaConfig):
    model_type = "made_up"


class MadeUpModel(LlavaForConditionalGeneration):
    config_class = MadeUpConfig


class MadeUp(Backbone):
    title = "MadeUp"
    model_types = ("made_up",)
    model_class = MadeUpModel
    processor_class = LlavaProcessor
    modules = {"projector": "multi_modal_projector", "vision_tower": "vision_tower"}  # noqa: RUF012
    unread_keys = {"token_budget": None, "pack_length": None}  # noqa: RUF012
    auto_classes = {MadeUpModel: "AutoModelForImageTextToText"}  # noqa: RUF012


@pytest.fixture
def made_up(tiny_llava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint of a backbone that one line of the registry adds."""
    monkeypatch.setitem(BACKBONES, "made_up", MadeUp())
    folder = shutil.copytree(tiny_llava, tmp_path / "made_up")
    base = LlavaForConditionalGeneration.from_pretrained(tiny_llava)
    model = MadeUpModel(MadeUpConfig.from_dict({**base.config.to_dict(), "model_type": "made_up"}))
    model.load_state_dict(base.state_dict())
    model.save_pretrained(folder)
    return folder


def test_a_backbone_in_the_registry_is_opened_loaded_and_trained(made_up: Path, tiny_llava: Path) -> None:
    checkpoint = Checkpoint.open(made_up)
    assert isinstance(checkpoint.backbone, MadeUp) and isinstance(checkpoint.config, MadeUpConfig)
    model = checkpoint.model()
    assert type(model) is MadeUpModel and not model.training
    expected = LlavaForConditionalGeneration.from_pretrained(tiny_llava).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert checkpoint.processor().tokenizer.decode([5]) == Checkpoint.open(tiny_llava).processor().tokenizer.decode([5])
    trained = {n for n, p in checkpoint.trainable(["projector"], None).named_parameters() if p.requires_grad}
    assert trained and {checkpoint.backbone.module_group(name) for name in trained} == {"projector"}
    assert checkpoint.backbone.export_mark == "test_checkpoint.py"


def test_what_a_made_up_backbone_cannot_do_is_one_line(made_up: Path) -> None:
    with pytest.raises(ConfigError, match=r"^token_budget: not read by a MadeUp; leave it out$"):
        Checkpoint.open(made_up, token_budget=16)
    with pytest.raises(ConfigError, match=r"^token_budget: not .*\npack_length: not read by a MadeUp; leave it out$"):
        Checkpoint.open(made_up, {"pack_length": 9}, token_budget=16)
    message = f"^model {made_up}: a model of type 'made_up' has no compressor; one of crop_llava, llava has$"
    with pytest.raises(ConfigError, match=message):
        Checkpoint.open(made_up, needs_compressor=True)


def test_an_unknown_type_lists_those_that_are_known(tiny_llava: Path, made_up: Path) -> None:
    (made_up / "config.json").write_text('{"model_type": "unheard_of", "vision_config": {}}')
    with pytest.raises(ConfigError, match=rf"^model {made_up}: a model of type 'unheard_of' is none of .*made_up$"):
        Checkpoint.open(made_up)


def test_what_a_name_stands_for_is_known_without_weights(
    tiny_llava: Path, tiny_crop_llava: Path, tiny_qwen2_vl: Path, lora_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load_model", None)
    read = counted(monkeypatch, PreTrainedConfig, "get_config_dict")
    facts = {}
    for name in (tiny_llava, tiny_crop_llava, tiny_qwen2_vl, lora_checkpoint):
        checkpoint = Checkpoint.open(name)
        facts[name] = (checkpoint.backbone.title, checkpoint.is_trained, checkpoint.adapter is not None)
    assert list(facts.values()) == [
        ("LLaVA", False, False),
        ("LLaVA", True, False),
        ("Qwen2-VL", True, False),
        ("LLaVA", True, True),
    ]
    assert read == {str(name): 1 for name in facts}


def counted(monkeypatch: pytest.MonkeyPatch, owner: type, method: str) -> Counter[str]:
    """Count the calls of a class method by the name that is loaded."""
    calls: Counter[str] = Counter()
    load: Callable = getattr(owner, method)

    def note(cls: type, name: str, **options: object) -> object:
        calls[name] += 1
        return load.__func__(cls, name, **options)  # type: ignore[attr-defined]

    monkeypatch.setattr(owner, method, classmethod(note))
    return calls


def test_overrides_go_into_configuration_model_and_processor(tiny_llava: Path) -> None:
    checkpoint = Checkpoint.open(tiny_llava, compressor_type="uniform", token_budget=9)
    assert isinstance(checkpoint.config, CropLlavaConfig)
    for config in (checkpoint.config, checkpoint.model().config):
        assert (config.compressor_type, config.token_budget) == ("uniform", 9)
    assert checkpoint.processor().token_budget == 9
    with pytest.raises(ConfigError, match=r"token_budget: 65 is outside 2..64"):
        Checkpoint.open(tiny_llava, token_budget=65)


def test_an_adapter_computes_the_same_merged(lora_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(lora_checkpoint)
    ids = torch.arange(3, 12)[None]
    with torch.no_grad():
        beside, merged = checkpoint.model()(input_ids=ids).logits, checkpoint.merged()(input_ids=ids).logits
    torch.testing.assert_close(merged, beside, rtol=0, atol=1e-4)


def test_no_file_outside_the_backbones_compares_a_model_type() -> None:
    """A fact in which families differ belongs into `Backbone`."""
    root = Path(train.__file__).parent
    places = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in sorted(root.rglob("*.py"))
        if "backbones" not in path.parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare | ast.Match) and compares_a_type(node)
    ]
    assert places == []


def compares_a_type(node: ast.AST) -> bool:
    """Whether a name or an attribute that is compared holds a model type, or a compared text is one."""
    inside = list(ast.walk(node.subject if isinstance(node, ast.Match) else node))
    names = {getattr(part, "id", None) or getattr(part, "attr", None) for part in inside}
    texts = {part.value for part in inside if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    return bool(names & {"model_type", "model_types", "MODEL_TYPE"} or texts & set(BACKBONES))


def test_every_family_knows_its_vision_tower(tiny_crop_llava: Path, tiny_qwen2_vl: Path) -> None:
    llava, qwen = Checkpoint.open(tiny_crop_llava), Checkpoint.open(tiny_qwen2_vl)
    one, other = llava.merged(), qwen.merged()
    assert llava.backbone.vision_tower(one) is one.model.vision_tower
    assert qwen.backbone.vision_tower(other) is other.model.visual
