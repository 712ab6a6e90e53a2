"""ILP against a slow reference that drops nothing and hides tokens from the later layers by an attention mask."""

from pathlib import Path

import pytest
import torch
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask
from transformers.modeling_flash_attention_utils import _is_packed_sequence
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from crop_model.configuration_crop_llava import CropLlavaConfig
from crop_model.modeling_crop_llava import CropLlavaForConditionalGeneration
from crop_model.processing_crop_llava import CropLlavaProcessor
from crop_model.training_free.inside_llm import PruningConfig, budget_for_mean, prune
from tests.crop_model.training_free.pruning_reference import hidden

LAYERS = 4
TEXTS = [
    "USER: <image>\nwhat is <image> this ASSISTANT:",
    "USER: how many ASSISTANT:",
    "USER: <image>\nwhat ASSISTANT:",
    "USER: <image>\nwhat is the colour of the square here ? ASSISTANT:",
]
SIDE = 32  # images are as large as the model's input: boxes are in its pixels, patches of 4
BOXES = [[0, 0, 8, 8], None, [10, 10, 30, 30], [0, 0, 32, 32]]  # 4 patches, unknown, 36, everything
RESTS = ["thinned", "pooled", "attention"]


def build(tiny_llava: Path, **keys) -> CropLlavaForConditionalGeneration:
    """The tiny LLaVA's sizes with four LLM layers and grouped keys, all weights random."""
    config = CropLlavaConfig.from_pretrained(tiny_llava, **keys)
    config.text_config.num_hidden_layers = LAYERS
    config.text_config.num_key_value_heads = 2
    torch.manual_seed(3)
    model = CropLlavaForConditionalGeneration(config).eval()
    for parameter in model.model.compressor.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope="module")
def models(tiny_llava: Path) -> dict[str, CropLlavaForConditionalGeneration]:
    """By the number of visual tokens that enter the LLM: all 64, or 16 of a trained compressor."""
    plc = build(tiny_llava, compressor_type="region_ratio", token_budget=16, compressor_num_attention_heads=2)
    return {"none": build(tiny_llava, compressor_type="none"), "plc": plc}


@pytest.fixture(scope="module")
def processors(tiny_llava: Path) -> dict[str, CropLlavaProcessor]:
    return {
        "none": CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=64),
        "plc": CropLlavaProcessor.from_pretrained(tiny_llava, token_budget=16),
    }


def batch(processor, texts=TEXTS, boxes=BOXES, side="left"):
    generator = torch.Generator().manual_seed(0)
    count = sum(text.count("<image>") for text in texts)
    images = [torch.randint(0, 256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8) for _ in range(count)]
    return processor(
        images=images or None, text=texts, regions=boxes[:count], padding=True, padding_side=side, return_tensors="pt"
    )


def close(ours, expected):
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["none", "plc"])
@pytest.mark.parametrize("rest", RESTS)
def test_everything_kept_equals_the_unpruned_model(models, processors, kind, rest):
    model, inputs = models[kind], batch(processors[kind])
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        expected = model(**inputs).logits
        with prune(model, PruningConfig(2, model.config.token_budget, rest)):
            close(model(**inputs).logits[real], expected[real])
        assert torch.equal(model(**inputs).logits, expected), "the hooks must be gone"


@pytest.mark.parametrize("rest", RESTS)
@pytest.mark.parametrize(
    "kind, layer, budget, side",
    [
        ("none", 1, 9, "left"),
        ("none", 2, 20, "right"),
        ("none", 3, 1, "left"),
        ("none", 2, 36, "left"),
        ("plc", 2, 5, "left"),
    ],
)
def test_forward_equals_the_reference(models, processors, kind, layer, budget, side, rest):
    model, inputs = models[kind], batch(processors[kind], side=side)
    config = PruningConfig(layer, budget, rest)
    with torch.no_grad():
        with hidden(model, inputs, config) as visible:
            expected = model(**inputs, use_cache=False).logits
        unpruned = model(**inputs).logits
        for use_cache in (True, False):
            with prune(model, config):
                ours = model(**inputs, use_cache=use_cache).logits
            close(ours[visible], expected[visible])
    text = visible & (inputs["input_ids"] != model.config.image_token_id)
    assert (ours[text] - unpruned[text]).abs().max() > 1e-3, "a test that pruning does not fail needs an effect"


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("rest", RESTS)
def test_generate_equals_the_reference(models, processors, rest, beams, implementation):
    """With a cache, against the reference that sees the whole sequence anew at each step."""
    model, inputs = models["none"], batch(processors["none"])
    config = PruningConfig(2, 9, rest)
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "num_beams": beams}
    settings |= {"output_logits": True, "return_dict_in_generate": True}
    with hidden(model, inputs, config, beams):
        expected = model.generate(**inputs, **settings, use_cache=False)
    model.set_attn_implementation(implementation)
    with prune(model, config):
        ours = model.generate(**inputs, **settings)
    model.set_attn_implementation("sdpa")
    assert torch.equal(ours.sequences, expected.sequences)
    close(torch.stack(ours.logits), torch.stack(expected.logits))


def unpadded_attention(module, query, key, value, attention_mask, scaling, position_ids=None, **kwargs):
    """What FlashAttention does in transformers, row by row: a 2D mask of keys or none, padding taken out of both."""
    assert not _is_packed_sequence(position_ids, len(query))
    new, heads = query.shape[2], query.shape[1] // key.shape[1]
    output = torch.zeros_like(query)
    for row in range(len(query)):
        keys = torch.ones(key.shape[2]).bool() if attention_mask is None else attention_mask[row].bool()
        asks, visible = keys[-new:], torch.ones(int(keys[-new:].sum()), int(keys.sum())).bool()
        output[row, :, asks] = torch.nn.functional.scaled_dot_product_attention(
            query[row, :, asks],
            key[row, :, keys].repeat_interleave(heads, dim=0),
            value[row, :, keys].repeat_interleave(heads, dim=0),
            attn_mask=visible.tril(visible.shape[1] - visible.shape[0]),
            scale=scaling,
        )
    return output.transpose(1, 2), None


@pytest.mark.parametrize("rows", [slice(0, 4), slice(0, 1)], ids=["padded", "one row"])
@pytest.mark.parametrize("rest", RESTS)
def test_attention_that_takes_the_padding_out(models, processors, rest, rows):
    """The masks and positions that FlashAttention would get; the kernel itself needs a GPU."""
    ALL_ATTENTION_FUNCTIONS.register("unpadded", unpadded_attention)
    AttentionMaskInterface.register("unpadded", flash_attention_mask)
    model, inputs = models["none"], batch(processors["none"], TEXTS[rows])
    settings = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "num_beams": 2}
    settings |= {"output_logits": True, "return_dict_in_generate": True}
    results = []
    for implementation in ("sdpa", "unpadded"):
        model.model.language_model.set_attn_implementation(implementation)
        with prune(model, PruningConfig(2, 9, rest)):
            results.append(torch.stack(model.generate(**inputs, **settings).logits))
    model.set_attn_implementation("sdpa")
    close(*results)


@pytest.mark.parametrize("kind", ["none", "plc"])
@pytest.mark.parametrize("rest", ["thinned", "pooled"])
def test_generate_without_a_cache_equals_with_one(models, processors, kind, rest):
    model, inputs = models[kind], batch(processors[kind])
    with prune(model, PruningConfig(1, 7, rest)):
        results = [
            model.generate(
                **inputs, max_new_tokens=6, min_new_tokens=6, do_sample=False, num_beams=2, use_cache=use_cache
            )
            for use_cache in (True, False)
        ]
    assert torch.equal(*results)


@pytest.mark.parametrize("rest", RESTS)
def test_batch_equals_each_sample_alone(models, processors, rest):
    model, processor = models["none"], processors["none"]
    inputs = batch(processor)
    settings = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    with prune(model, PruningConfig(2, 9, rest)):
        together = model.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :]
        first = 0
        for row, text in enumerate(TEXTS):
            images = slice(first, first + text.count("<image>"))
            first = images.stop
            ids = processor.tokenizer(text.replace("<image>", "<image>" * 64), return_tensors="pt")
            own = {"pixel_values": inputs["pixel_values"][images], "region_mask": inputs["region_mask"][images]}
            alone = model.generate(**ids, **(own if text.count("<image>") else {}), **settings)
            assert together[row].tolist() == alone[0, ids["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("masked", [True, False], ids=["padded", "no mask"])
def test_the_cache_shrinks_and_goes_on(models, processors, masked):
    """Layers >= K hold the tokens kept alone, and a second turn of text goes on from there."""
    texts = TEXTS if masked else TEXTS[2:3]
    model, inputs = models["none"], batch(processors["none"], texts)
    config = PruningConfig(2, 9)
    turn = torch.tensor([[7, 8, 9]]).expand(len(texts), -1)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(turn)], dim=1)
    images = torch.tensor([text.count("<image>") for text in texts])
    kept = int((inputs["attention_mask"].sum(dim=1) - images * (64 - 9)).max())
    with torch.no_grad():
        with hidden(model, inputs, config):
            whole = {**inputs, "input_ids": torch.cat([inputs["input_ids"], turn], dim=1), "attention_mask": mask}
            expected = model(**whole, use_cache=False).logits[:, -3:]
        with prune(model, config):
            prompt = inputs if masked else {**inputs, "attention_mask": None}
            cache = model(**prompt, use_cache=True).past_key_values
            lengths = [layer.keys.shape[2] for layer in cache.layers]
            assert lengths == [inputs["input_ids"].shape[1]] * 2 + [kept] * 2
            positions = torch.arange(mask.shape[1])[None, -3:]
            for place in range(3):  # one by one, then all at once
                step = {"attention_mask": mask[:, : mask.shape[1] - 2 + place] if masked else None}
                step |= {"position_ids": positions[:, [place]], "past_key_values": cache}
                close(model(input_ids=turn[:, [place]], **step).logits, expected[:, [place]])
            cache.crop(-3)
            together = {"attention_mask": mask if masked else None, "position_ids": positions}
            close(model(input_ids=turn, past_key_values=cache, **together).logits, expected)


def test_region_decides_what_stays(models, processors):
    model, processor = models["none"], processors["none"]
    with torch.no_grad(), prune(model, PruningConfig(1, 4)):
        corners = [
            model(**batch(processor, [TEXTS[2]], [box])).logits[0, -1] for box in ([0, 0, 8, 8], [24, 24, 32, 32])
        ]
    assert (corners[0] - corners[1]).abs().max() > 1e-4


def test_labels_keep_their_places(models, processors):
    """The loss over words after words; what a dropped token says of the word after it is no prediction."""
    model, inputs = models["none"], batch(processors["none"])
    ids, config = inputs["input_ids"], PruningConfig(2, 9)
    supervised = inputs["attention_mask"].bool() & (ids != model.config.image_token_id)
    supervised[:, 1:] &= supervised[:, :-1].clone()
    labels = ids.masked_fill(~supervised, -100)
    with torch.no_grad():
        with hidden(model, inputs, config):
            expected = model(**inputs, labels=labels, use_cache=False).loss
        with prune(model, config):
            close(model(**inputs, labels=labels).loss, expected)


def test_both_conventions_of_a_budget():
    config = PruningConfig(layer=2, token_budget=64)
    assert config.mean_tokens(visual_tokens=576, num_layers=32) == 96
    assert budget_for_mean(96, layer=2, visual_tokens=576, num_layers=32) == 64
    for mean in range(40, 577, 31):
        budget = budget_for_mean(mean, 2, 576, 32)
        assert PruningConfig(2, budget).mean_tokens(576, 32) <= mean
        assert budget == 576 or PruningConfig(2, budget + 1).mean_tokens(576, 32) > mean
    with pytest.raises(ValueError, match="mean_tokens"):
        budget_for_mean(36, layer=2, visual_tokens=576, num_layers=32)


@pytest.mark.parametrize("values, key", [((0, 4), "layer"), ((1, 0), "token_budget"), ((1, 4, "magic"), "rest")])
def test_wrong_configuration(values, key):
    with pytest.raises(ValueError, match=key):
        PruningConfig(*values)


@pytest.mark.parametrize("config, key", [(PruningConfig(LAYERS, 4), "layer"), (PruningConfig(1, 65), "token_budget")])
def test_configuration_that_the_model_does_not_have(models, config, key):
    with pytest.raises(ValueError, match=key), prune(models["none"], config):
        pass


def test_wrong_calls(models, processors):
    model, inputs = models["none"], batch(processors["none"], [TEXTS[2]])
    cache = model(**inputs, use_cache=True).past_key_values
    word, encoded_before = torch.tensor([[7]]), model.model.get_image_features(inputs["pixel_values"])
    with torch.no_grad(), prune(model, PruningConfig(1, 4)):
        with pytest.raises(ValueError, match="past_key_values"):
            model(input_ids=word, past_key_values=cache)
        with pytest.raises(ValueError, match="encoded last"):
            model(input_ids=inputs["input_ids"], mm_encoder_outputs={"image": encoded_before})
        cache = model(**inputs, use_cache=True).past_key_values
        with pytest.raises(ValueError, match="images in its first forward pass"):
            model(**{**inputs, "attention_mask": None}, past_key_values=cache)
        with pytest.raises(ValueError, match="input_ids"):
            model(inputs_embeds=torch.zeros(1, 3, 32))
        with pytest.raises(ValueError, match="packed samples"):
            model(input_ids=word.expand(1, 4), position_ids=torch.tensor([[0, 1, 0, 1]]))
        with pytest.raises(ValueError, match="attention_mask"):
            model(input_ids=word, attention_mask=torch.ones(1, 1, 1, 1))
