"""Compute VQA accuracy, with the two normalisers that public code applies before it.

The accuracy is that of Goyal et al. (VQAv2, 2017): every annotator in turn is left out, an answer scores min(1, m / 3)
if m of the others gave it, and the question scores the mean. Before that, answers are normalised. Public copies differ:

    `evalai_normalize`   the EvalAI processor of TextVQA, which LLaVA and lmms-eval (TextVQA, VizWiz) use. It first
                         converts to lower case, deletes commas and question marks, and separates 's as a word; so the
                         number rule below never applies, because no comma remains.
    `vqav2_normalize`    the normaliser of VQAv2's own `vqaEval.py`, without that first step.

The number rule: if there is a comma between two digits, all punctuation is deleted; otherwise a mark beside a blank is
deleted and any other mark becomes a blank. `vqaEval.py` matches digit, comma, digit; the EvalAI copies match digit,
commas, digit, so that only they match "1,,000". VQAv2's code normalises nothing if all annotators wrote the same; the
others always normalise. lmms-eval's VQAv2 task is a third mixture: `evalai_normalize` without its first step, always.

Some defects are reproduced because they decide scores. The regular expression meant to spare periods after digits
spares none, so that "3." is "3" and only a period before a digit stays. Its `re.UNICODE` is passed as a count, so that
a text loses at most 32 periods. Contractions are looked up in lower case, so that the tables' "Im", "Ive", "Id've"
never match. "let's" and "she's" map to themselves; "somebody'd" loses its apostrophe while all others gain one.
"""

import re
from collections.abc import Sequence

from data_prep.common.errors import DataError

MIN_ANNOTATORS = 4  # with fewer, even an answer that all gave scores below 1
_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIODS_REMOVED = int(re.UNICODE)  # see above
_ARTICLES = {"a", "an", "the"}
_NUMBERS = {word: str(n) for n, word in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven"])}
_NUMBERS |= {"none": "0", "eight": "8", "nine": "9", "ten": "10"}
_APOSTROPHES = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""


def _without_one_apostrophe(words: str) -> dict[str, str]:
    """Map the spellings that lack one of a word's apostrophes to the word."""
    marks = [(word, index) for word in words.split() for index, letter in enumerate(word) if letter == "'"]
    return {word[:index] + word[index + 1 :]: word for word, index in marks}


_CONTRACTIONS = _without_one_apostrophe(_APOSTROPHES) | {"somebody'd": "somebodyd"}


def evalai_normalize(text: str) -> str:
    """Normalise an answer like the EvalAI processor of TextVQA: "Two dogs." becomes "2 dogs"."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return vqav2_normalize(text)


def vqav2_normalize(text: str) -> str:
    """Normalise an answer like VQAv2's `vqaEval.py`, which does so if annotators disagree."""
    return _normalize_words(_strip_punctuation(_one_line(text)))


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _strip_punctuation(text: str) -> str:
    has_number = _NUMBER.search(text) is not None
    stripped = text
    for mark in _MARKS:
        beside_blank = f"{mark} " in text or f" {mark}" in text
        stripped = stripped.replace(mark, "" if beside_blank or has_number else " ")
    return _PERIOD.sub("", stripped, count=_PERIODS_REMOVED)


def _normalize_words(text: str) -> str:
    """Convert number words to digits, drop articles, add apostrophes to contractions."""
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(answer: str, targets: Sequence[str]) -> float:
    """Compute VQA accuracy after `evalai_normalize`, in [0, 1], as TextVQA and VizWiz do.

    Args:
        answer: the model's answer.
        targets: every annotator's answer, repeated if they agree.

    Raises:
        DataError: fewer than `MIN_ANNOTATORS` targets.
    """
    return _leave_one_out(evalai_normalize(answer), [evalai_normalize(target) for target in targets])


def vqav2_accuracy(answer: str, targets: Sequence[str]) -> float:
    """Compute VQA accuracy like VQAv2's own code, in [0, 1]: `vqav2_normalize`, but only if the annotators differ.

    Arguments and errors are those of `vqa_accuracy`.
    """
    answer, targets = _one_line(answer), [_one_line(target) for target in targets]
    if len(set(targets)) > 1:
        answer, targets = vqav2_normalize(answer), [vqav2_normalize(target) for target in targets]
    return _leave_one_out(answer, targets)


def _leave_one_out(answer: str, targets: Sequence[str]) -> float:
    """Average over annotators left out: if m of n agree, m of them see m - 1 others that do, and n - m see m."""
    n, m = len(targets), targets.count(answer)
    if n < MIN_ANNOTATORS:
        raise DataError(f"VQA accuracy compares with {MIN_ANNOTATORS} annotators or more, not {n}: {list(targets)}")
    return (m * min(1.0, (m - 1) / 3) + (n - m) * min(1.0, m / 3)) / n
