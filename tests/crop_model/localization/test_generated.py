"""Whatever a model's weights and a prompt say, a localizer writes a box of the grid, and says how sure it is."""

import itertools
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LogitsProcessorList, PreTrainedTokenizerFast

from crop_model.localization.base import LocatedRegion
from crop_model.localization.generated import Localizer
from crop_model.localization.grid_box import ANSWER, GridBoxProcessor
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.processing_crop_llava import CropLlavaProcessor
from crop_model.regions import WHOLE_IMAGE, cells_to_pixels

ROOT = Path(__file__).parents[3]
QUESTIONS = (
    "Which digit is at B3?",
    "Is any frame red?",
    "at at at at 7 , 7 , [ ] 0 0 0",
    "digit",
    "9 8 7 6 5 4 3 2 1 0",
)


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """Splits as Qwen2's: every digit alone, a space before it a token of its own, but brackets and commas may join."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*alphabet, ",Ġ"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[(",", "Ġ")]))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def demo_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast.from_pretrained(ROOT / "configs" / "demo_base")


TOKENIZERS = {"byte level": byte_level_tokenizer, "words": demo_tokenizer}


def decode(box: GridBoxProcessor, prompts: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Greedy answers (B, 4) where the model says `scores` (A, B, V), whatever it read."""
    ids = prompts
    for of_step in scores:
        ids = torch.cat([ids, box(ids, of_step).argmax(dim=-1, keepdim=True)], dim=1)
    return box.indices(ids)


def adversarial(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Scores of every scale, with many that are not finite."""
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(shape, generator=random) * 10 ** (8 * torch.rand(shape[:2], generator=random)[..., None] - 4)
    for value in (float("nan"), float("inf"), float("-inf")):
        share = torch.rand(shape[:2], generator=random)[..., None]
        scores[torch.rand(shape, generator=random) < share] = value
    return scores


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ten_thousand_adversarial_answers_are_boxes(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    prompts = torch.randint(len(tokenizer), (10_000, 3), generator=torch.Generator().manual_seed(1))
    box = GridBoxProcessor(tokenizer, 3)
    xmin, ymin, xmax, ymax = decode(box, prompts, adversarial(0, (len(box.fixed), 10_000, len(tokenizer)))).T
    assert (xmin >= 0).all() and (xmin <= xmax).all() and (xmax <= 7).all()
    assert (ymin >= 0).all() and (ymin <= ymax).all() and (ymax <= 7).all()
    assert (
        len({tuple(row) for row in torch.stack([xmin, ymin, xmax, ymax], dim=1).tolist()}) > 500
    )  # and not always one


def test_every_box_can_be_written_and_is_read_back() -> None:
    for make in TOKENIZERS.values():
        tokenizer = make()
        box = GridBoxProcessor(tokenizer, 0)
        for cells in itertools.product((0, 3, 7), repeat=4):
            xmin, ymin, xmax, ymax = cells
            ids = torch.tensor([tokenizer(ANSWER.format(*cells), add_special_tokens=False)["input_ids"]])
            assert box.indices(ids).tolist() == [list(cells)]
            steps = [
                box(ids[:, :place], torch.zeros(1, len(tokenizer)))[0, ids[0, place]].isfinite().item()
                for place in range(len(box.fixed))
            ]
            assert all(steps) == (xmin <= xmax and ymin <= ymax)


def test_a_tokenizer_that_joins_digits_is_refused() -> None:
    words = {text: number for number, text in enumerate(["[", "]", ",", *map(str, range(7))])}  # no 7
    tokenizer = Tokenizer(models.WordLevel(words | {"?": len(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")
    GridBoxProcessor(fast, 0)  # an unknown word is a token too: eight different ones
    joined = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    joined.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    with pytest.raises(ValueError, match="every grid index as one token"):
        GridBoxProcessor(PreTrainedTokenizerFast(tokenizer_object=joined, unk_token="?"), 0)


@pytest.fixture(scope="module")
def localizer() -> Localizer:
    base = ROOT / "configs" / "demo_base"
    model = CropLlavaForConditionalGeneration.from_pretrained(base, compressor_type="none", token_budget=256)
    return Localizer(model.eval(), CropLlavaProcessor.from_pretrained(base, token_budget=256))


def picture(seed: int, size: tuple[int, int] = (128, 128)) -> Image.Image:
    noise = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(noise.to(torch.uint8).numpy())


def test_a_batch_is_each_question_alone(localizer: Localizer) -> None:
    images = [picture(number) for number in range(5)]
    together = localizer.predict(images, QUESTIONS, batch_size=3)
    for image, question, located in zip(images, QUESTIONS, together, strict=True):
        (alone,) = localizer.predict([image], [question])
        assert alone.cells == located.cells
        assert alone.confidence == pytest.approx(located.confidence, abs=1e-5)


def test_confidence_is_the_probability_of_the_four_indices(localizer: Localizer) -> None:
    """Against one forward pass over the written answer, its probabilities taken over the possible indices."""
    image = picture(3)
    (located,) = localizer.predict([image], [QUESTIONS[0]])
    tokenizer = localizer.processor.tokenizer
    messages = [
        {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": QUESTIONS[0]}]}
    ]
    inputs = localizer.processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, add_generation_prompt=True, processor_kwargs={"return_tensors": "pt"}
    )
    start = inputs["input_ids"].shape[1]
    answer = tokenizer(ANSWER.format(*located.cells), add_special_tokens=False, return_tensors="pt")["input_ids"]
    ids = torch.cat([inputs["input_ids"], answer], dim=1)
    images = {key: inputs[key] for key in ("pixel_values", "region_mask")}
    with torch.no_grad():
        logits = localizer.model(input_ids=ids, attention_mask=torch.ones_like(ids), **images).logits[0]
    expected = 1.0
    for number, (place, index) in enumerate(zip(range(1, 8, 2), located.cells, strict=True)):
        first = 0 if number < 2 else located.cells[number - 2]
        possible = [tokenizer.convert_tokens_to_ids(str(value)) for value in range(first, 8)]
        expected *= logits[start + place - 1, possible].softmax(dim=0)[index - first].item()
    assert located.confidence == pytest.approx(expected, rel=1e-4)


def test_known_tokens_fed_together_change_nothing(localizer: Localizer, tiny_qwen2_vl: Path) -> None:
    """Against one call of `generate` that writes the answer token by token; prompts padded on the left."""
    for one, questions in ((localizer, QUESTIONS[:3]), (Localizer.from_pretrained(str(tiny_qwen2_vl)), ("where", "?"))):
        images = [picture(number, (40 + 40 * number, 64)) for number in range(len(questions))]
        inputs = one._prompts(images, questions)
        assert not inputs["attention_mask"].all()
        box = GridBoxProcessor(one.processor.tokenizer, inputs["input_ids"].shape[1])
        settings = {"do_sample": False, "output_scores": True, "return_dict_in_generate": True}
        settings |= {"logits_processor": LogitsProcessorList([box]), "max_new_tokens": len(box.fixed)}
        whole = one.model.generate(**inputs, **settings)
        written, scores = one._write(inputs, box)
        assert torch.equal(written, whole.sequences[:, : written.shape[1]])
        expected = torch.stack([whole.scores[place] for place in box.positions], dim=1)
        torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)


def test_random_weights_of_a_whole_model_write_boxes(localizer: Localizer) -> None:
    """The head alone is drawn anew, at scales up to where numbers overflow."""
    head = localizer.model.get_output_embeddings()
    kept = head.weight.data.clone()
    try:
        for seed, scale in enumerate((1e-3, 1.0, 1e4, 3e38)):
            torch.manual_seed(seed)
            head.weight.data = torch.randn_like(kept) * scale
            for located in localizer.predict([picture(seed)] * 5, QUESTIONS, batch_size=5):
                xmin, ymin, xmax, ymax = located.cells
                assert 0 <= xmin <= xmax <= 7 and 0 <= ymin <= ymax <= 7
                assert 0 <= located.confidence <= 1
    finally:
        head.weight.data = kept


def test_a_region_below_the_threshold_is_the_whole_image(localizer: Localizer) -> None:
    image = picture(0, (200, 100))
    (sure,) = Localizer(localizer.model, localizer.processor).predict([image], [QUESTIONS[0]])
    (unsure,) = Localizer(localizer.model, localizer.processor, threshold=1.1).predict([image], [QUESTIONS[0]])
    assert unsure == LocatedRegion(None, sure.cells, sure.confidence)
    expected = None if sure.cells == WHOLE_IMAGE else cells_to_pixels(sure.cells, 200, 100)
    assert sure.region == expected
    assert cells_to_pixels((2, 1, 4, 2), 200, 100) == (50, 12.5, 125, 37.5)


def test_a_model_that_keeps_no_cache_unless_asked(localizer: Localizer, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = localizer.predict([picture(0)], [QUESTIONS[0]])
    monkeypatch.setattr(localizer.model.generation_config, "use_cache", False)
    assert localizer.predict([picture(0)], [QUESTIONS[0]]) == expected


def test_every_question_has_an_image(localizer: Localizer) -> None:
    with pytest.raises(ValueError, match="questions: 2 for 1 images"):
        localizer.predict([picture(0)], ["a", "b"])
    assert localizer.predict([], []) == []
