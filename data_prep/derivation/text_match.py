"""Match text in an image and names of objects with the words of a question and its answer.

Distances come from rapidfuzz and stems from Snowball; the rules around them are this project's.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import snowballstemmer
from rapidfuzz.distance import Levenshtein

from data_prep.schema.question import LabelledBox

MIN_SIMILARITY = 0.8  # ANLS of an answer and the recognised text
_CUTOFF = MIN_SIMILARITY - 1e-6  # in floats, 1 - 0.8 is below 0.2, so that one wrong letter of five would be too many
MAX_ANSWER_WORDS = 12  # a longer answer is a sentence, not text in the image
EXTRA_WORDS = 1  # OCR splits and joins words: a run may have this many more or fewer words than the answer
_SPACES = re.compile(r"[\W_]+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_EXACT = re.compile(
    r"(?<![\w%])-(?=[^\w\s]?\.?\d)"  # a sign, which a currency may follow
    r"|(?<!\w)\.(?=\d)|(?<=\d)[.,/:](?=\d)"  # marks before or within a number
    r"|\d+|[^\W\d_]+|%"
)
_STEMMER = snowballstemmer.stemmer("english")
_IRREGULAR = {
    "buses": "bus", "children": "child", "knives": "knife", "mice": "mouse", "people": "person", "persons": "person",
}  # fmt: skip

# Words for COCO's `person` in questions.
PERSON_WORDS = (
    "man", "woman", "boy", "girl", "child", "kid", "guy", "lady", "player", "people", "men", "women", "baby", "someone",
)  # fmt: skip
COUNTING = re.compile(r"\bhow many\b|\bnumber of\b|\bcount\b", re.IGNORECASE)


@dataclass(frozen=True)
class Match:
    """Hold the boxes of a match, its score (0 to 1), and whether something else matched as well."""

    boxes: tuple[Sequence[float], ...]
    score: float
    ambiguous: bool


def match_answer(answers: Sequence[str], words: Sequence[LabelledBox], question: str) -> Match | None:
    """Find the run of words that shows one of the answers; return the `Match` of its words' boxes, or None.

    A run matches if its normalised Levenshtein similarity to the answer, without case, spaces and punctuation, is at
    least `MIN_SIMILARITY`. If the answer has digits, `exact` must make both equal: with one misread letter a word is
    still the same word, with one misread digit a number is another number. Answers are tried in their order. Among
    equally good runs, the one nearest to words of the question is taken; `ambiguous` is set if no such word decides.
    """
    texts = [squeeze(word.text) for word in words]
    for answer in answers:
        count, target = len(answer.split()), squeeze(answer)
        if not target or target in ("yes", "no") or count > MAX_ANSWER_WORDS:  # a yes in the image is not the answer
            continue
        lengths = range(max(1, count - EXTRA_WORDS), count + EXTRA_WORDS + 1)
        has_digits = any(letter.isdecimal() for letter in answer)
        runs = _same_runs(words, exact(answer), lengths) if has_digits else _similar_runs(texts, target, lengths)
        if not runs:
            continue
        best = max(score for score, _, _ in runs)
        length = min(end - start for score, start, end in runs if score == best)  # no more words than necessary
        shortest = [(start, end) for score, start, end in runs if score == best and end - start == length]
        run, ambiguous = _nearest_to_question(shortest, texts, words, question)
        return Match(tuple(words[index].box for index in range(*run)), best, ambiguous)
    return None


def _similar_runs(texts: Sequence[str], target: str, lengths: range) -> list[tuple[float, int, int]]:
    """Return (similarity, first word, end) of every run of words that is similar enough."""
    runs = []
    for length in lengths:
        for start in range(len(texts) - length + 1):
            text = "".join(texts[start : start + length])
            score = Levenshtein.normalized_similarity(text, target, score_cutoff=_CUTOFF)
            if score >= _CUTOFF and texts[start] and texts[start + length - 1]:
                runs.append((score, start, start + length))
    return runs


def _same_runs(words: Sequence[LabelledBox], target: str, lengths: range) -> list[tuple[float, int, int]]:
    """Return, as `_similar_runs` does, the runs that `exact` makes equal to the target."""
    numbers = [exact(word.text) for word in words]
    return [
        (1.0, start, start + length)
        for length in lengths
        for start in range(len(numbers) - length + 1)
        if numbers[start]
        and target.startswith(numbers[start])
        and numbers[start + length - 1]
        and _joined(numbers[start : start + length]) == target
    ]


def _nearest_to_question(
    runs: Sequence[tuple[int, int]], texts: Sequence[str], words: Sequence[LabelledBox], question: str
) -> tuple[tuple[int, int], bool]:
    """Return the run nearest to a word of the question, and whether it is a guess, for want of such a word."""
    if len(runs) == 1:
        return runs[0], False
    terms = {squeeze(word) for word in question.split() if len(squeeze(word)) > 2}
    inside = {index for start, end in runs for index in range(start, end)}
    anchors = [_centre(word.box) for index, word in enumerate(words) if texts[index] in terms and index not in inside]
    if not anchors:
        return runs[0], True

    def distance(run: tuple[int, int]) -> float:
        centres = [_centre(words[index].box) for index in range(*run)]
        return min(math.dist(centre, anchor) for centre in centres for anchor in anchors)

    return min(runs, key=distance), False


def match_objects(question: str, objects: Sequence[LabelledBox]) -> Match | None:
    """Find the objects that the question names; return the `Match` of their boxes, or None if it names none.

    All objects of a named kind count. `ambiguous` is set if one kind has several objects and the question does not
    count them. The score is 1 over the number of named kinds: a question about two things may need only one.
    """
    stems = singular_words(question)
    text = f" {' '.join(stems)} "
    kinds: dict[str, list[Sequence[float]]] = {}
    for name, box in objects:
        kind = " ".join(singular_words(name))
        if kind and (f" {kind} " in text or (kind == "person" and not _person_stems().isdisjoint(stems))):
            kinds.setdefault(kind, []).append(box)
    if not kinds:
        return None
    boxes = tuple(box for kind in kinds.values() for box in kind)
    several = any(len(kind) > 1 for kind in kinds.values())
    return Match(boxes, 1 / len(kinds), several and not COUNTING.search(question))


def singular_words(text: str) -> list[str]:
    """Return the stems of a text's words in lower case, so that a plural equals its singular."""
    return [_stem(word) for word in re.findall(r"[a-z0-9]+", text.lower())]


@cache
def _person_stems() -> frozenset[str]:
    return frozenset(map(_stem, PERSON_WORDS))


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return _STEMMER.stemWord(_IRREGULAR.get(word, word))


def squeeze(text: str) -> str:
    """Return a text case-folded, without spaces and punctuation."""
    return _SPACES.sub("", text.casefold())


@lru_cache(maxsize=100_000)
def exact(text: str) -> str:
    """Return a text case-folded, without what does not distinguish one number from another.

    Signs, decimal points, `/`, `:` and `%` stay, and a space between two numbers; currencies, a comma between thousands
    and other punctuation go: "-$1,500.5" is "-1500.5", and "50 %" is "50%".
    """
    return _joined(_EXACT.findall(_THOUSANDS.sub("", text.casefold().replace("\u2212", "-")))).replace(",", ".")


def _joined(parts: Sequence[str]) -> str:
    """Join parts, with a space between two of them only if their digits would otherwise become one number."""
    text = ""
    for part in parts:
        text += f" {part}" if text[-1:].isdecimal() and part[:1].isdecimal() else part
    return text


def _centre(box: Sequence[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
