"""The demo's base: branches equal questions asked alone; the shipped folder is small, loads, and reads boards."""

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

from data_prep.boards.questions import ask
from data_prep.boards.scenes import compose, load_scans, render
from train.demo.base import BaseRecipe, main
from train.demo.base_data import BoardCollator, Boards, shown_words
from train.demo.base_model import GRID, PATCH_WORDS, build_model, build_processor
from train.demo.reading import read, see

SHIPPED = Path(__file__).parents[3] / "configs" / "demo_base"


@pytest.fixture(scope="module")
def processor():
    return build_processor()


def test_branches_equal_questions_asked_alone(processor):
    torch.manual_seed(0)
    model = build_model(processor.tokenizer).eval()
    boards = Boards("test", 2, 5, processor, seed=3)
    batch = BoardCollator(processor)([boards[0], boards[1]])
    with torch.no_grad():
        logits, _ = read(model, see(model, batch), batch)
        for number in range(2):
            rng = np.random.default_rng([3, number])
            scene = compose(rng, load_scans("test"))
            questions = ask(rng, scene, 5)
            image = render(scene, load_scans("test"), rng)
            for branch, question in enumerate(questions, start=1):
                conversation = [
                    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question.text}]},
                    {"role": "assistant", "content": [{"type": "text", "text": question.answer}]},
                ]
                text = processor.apply_chat_template(conversation)
                alone = model(**processor(images=image, text=text, return_tensors="pt")).logits[0]
                together = logits[number][batch["branch"][number] == branch]
                torch.testing.assert_close(together, alone[-len(together) :], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spread", [False, True])
def test_positions_follow_the_image_and_spread_only_moves_it_closer(processor, spread):
    torch.manual_seed(0)
    boards = [Boards("test", 1, 4, processor)[0]] * 6
    batch = BoardCollator(processor, spread)(boards)
    lengths = set()
    for positions, branch in zip(batch["position_ids"], batch["branch"], strict=True):
        image = positions[branch == 0]
        assert image[0] in (0, 1)
        assert set(image.diff().tolist()) <= {0, 1}
        for number in range(1, 5):
            after = positions[branch == number]
            assert torch.equal(after, image[-1] + 1 + torch.arange(len(after)))
        lengths.add(int(image[-1]))
        if not spread:
            assert torch.equal(image, torch.arange(len(image)))
    assert len(lengths) == (6 if spread else 1)


def test_labels_are_the_answer_and_its_end(processor):
    board = Boards("test", 1, 6, processor)[0]
    rng = np.random.default_rng([0, 0])
    questions = ask(rng, compose(rng, load_scans("test")), 6)
    for (ids, labels, references), question in zip(board["branches"], questions, strict=True):
        answer = [token for token in labels if token != -100]
        assert processor.tokenizer.convert_ids_to_tokens(answer) == [question.answer, "</s>"]
        assert "<unk>" not in processor.tokenizer.convert_ids_to_tokens(ids)
        named = processor.tokenizer.convert_ids_to_tokens([token for token in references if token != -100])
        assert named == [str(digit) for digit in question.digits]


def test_patches_show_what_their_cell_holds():
    rng = np.random.default_rng(0)
    scene = compose(rng, load_scans("test"))
    shown = shown_words(scene).reshape(GRID, GRID, -1)
    for cell, colour in scene.frames.items():
        row = 2 * cell[0] + (GRID - 2 * scene.rows) // 2
        column = 2 * cell[1] + (GRID - 2 * scene.columns) // 2
        words = {PATCH_WORDS[index] for index in shown[row + 1, column + 1].nonzero().flatten()}
        assert {colour, str(scene.digit[cell])} <= words
        assert sum(bool(re.fullmatch("[A-H][1-8]", word)) for word in words) == 1


def test_shipped_base_is_small_and_reads_unseen_scans():
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 8 * 2**20
    model = LlavaForConditionalGeneration.from_pretrained(SHIPPED).eval()
    processor = AutoProcessor.from_pretrained(SHIPPED)
    boards = Boards("test", 12, 6, processor, seed=99)
    batch = BoardCollator(processor)([boards[number] for number in range(len(boards))])
    with torch.no_grad():
        logits, _ = read(model, see(model, batch), batch)
    labels = batch["labels"][:, 1:]
    right = (logits[:, :-1].argmax(-1) == labels)[labels != -100].float().mean()
    assert right > 0.85  # of tokens, the easy ends included; chance is about 0.6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "out: is required"),
        (["seed=1"], "out: is required"),
        (["OUT", "stepz=1"], "unknown key 'stepz'"),
        (["OUT", "seed=x"], "seed: expected a whole number, got 'x'"),
        (["OUT", "seed"], "'seed' is neither"),
    ],
)
def test_wrong_calls_are_one_line_and_exit_2(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path / "out") if word == "OUT" else word for word in words])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("python -m train.demo.base: error: ") and message in error
    assert not (tmp_path / "out").exists()


def test_help_names_every_key_and_its_default(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    assert "OUT" in shown and "out (required)" in shown
    for field in fields(BaseRecipe)[1:]:
        assert f"{field.name} (default: {field.default})" in shown
