"""Text in an image and the names of objects against the words of a question and its answer.

Distances are rapidfuzz's, stems Snowball's; the rules around them are this project's.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import snowballstemmer
from rapidfuzz.distance import Levenshtein

from data_prep.schema.question import LabelledBox

MIN_SIMILARITY = 0.8  # ANLS of an answer and the text read
_CUTOFF = MIN_SIMILARITY - 1e-6  # in floats, 1 - 0.8 is below 0.2, and one letter of five would be too many
MAX_ANSWER_WORDS = 12  # a longer answer is a sentence, not a place in the image
EXTRA_WORDS = 1  # OCR splits and joins words: a run may have so many more or fewer words than the answer
_SPACES = re.compile(r"[\W_]+")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_EXACT = re.compile(
    r"(?<![\w%])-(?=[^\w\s]?\.?\d)"  # a sign; a currency may stand behind it
    r"|(?<!\w)\.(?=\d)|(?<=\d)[.,/:](?=\d)"  # what stands before or within a number
    r"|\d+|[^\W\d_]+|%"
)
_STEMMER = snowballstemmer.stemmer("english")
_IRREGULAR = {
    "buses": "bus",
    "children": "child",
    "knives": "knife",
    "mice": "mouse",
    "people": "person",
    "persons": "person",
}

# COCO's `person` goes by other names in questions.
PERSON_WORDS = frozenset(
    (
        "man",
        "woman",
        "boy",
        "girl",
        "child",
        "kid",
        "guy",
        "lady",
        "player",
        "people",
        "men",
        "women",
        "baby",
        "someone",
    )
)
COUNTING = re.compile(r"\bhow many\b|\bnumber of\b|\bcount\b", re.IGNORECASE)


@dataclass(frozen=True)
class Match:
    """Boxes of what matched, how surely (0 to 1), and whether something else matched as well."""

    boxes: tuple[Sequence[float], ...]
    score: float
    ambiguous: bool


def match_answer(answers: Sequence[str], words: Sequence[LabelledBox], question: str) -> Match | None:
    """The run of words that shows one of the answers, as `Match` of its words' boxes; None where there is none.

    A run counts where its normalised Levenshtein similarity to the answer, without case, spaces and punctuation, is at
    least `MIN_SIMILARITY`; where the answer has digits, only where `exact` makes them equal: a letter misread is still
    the word, a digit misread is another number. Answers are tried in their order. Of several equally good runs, the one
    nearest to words of the question is taken, and `ambiguous` set where no such word tells them apart.
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
        length = min(end - start for score, start, end in runs if score == best)  # of no more words than it needs
        places = [(start, end) for score, start, end in runs if score == best and end - start == length]
        place, ambiguous = _nearest_to_question(places, texts, words, question)
        return Match(tuple(words[index].box for index in range(*place)), best, ambiguous)
    return None


def _similar_runs(texts: Sequence[str], target: str, lengths: range) -> list[tuple[float, int, int]]:
    """(similarity, first word, end) of every run of words that is similar enough."""
    runs = []
    for length in lengths:
        for start in range(len(texts) - length + 1):
            text = "".join(texts[start : start + length])
            score = Levenshtein.normalized_similarity(text, target, score_cutoff=_CUTOFF)
            if score >= _CUTOFF and texts[start] and texts[start + length - 1]:
                runs.append((score, start, start + length))
    return runs


def _same_runs(words: Sequence[LabelledBox], target: str, lengths: range) -> list[tuple[float, int, int]]:
    """As `_similar_runs`, of the runs that `exact` makes equal to the target."""
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
    places: Sequence[tuple[int, int]], texts: Sequence[str], words: Sequence[LabelledBox], question: str
) -> tuple[tuple[int, int], bool]:
    """The run that stands nearest to a word of the question, and whether that was no choice but a guess."""
    if len(places) == 1:
        return places[0], False
    asked = {squeeze(word) for word in question.split() if len(squeeze(word)) > 2}
    inside = {index for start, end in places for index in range(start, end)}
    anchors = [_centre(word.box) for index, word in enumerate(words) if texts[index] in asked and index not in inside]
    if not anchors:
        return places[0], True

    def distance(place: tuple[int, int]) -> float:
        centres = [_centre(words[index].box) for index in range(*place)]
        return min(math.dist(centre, anchor) for centre in centres for anchor in anchors)

    return min(places, key=distance), False


def match_objects(question: str, objects: Sequence[LabelledBox]) -> Match | None:
    """The objects that the question names, as `Match` of their boxes; None where it names none.

    All objects of a named kind count. `ambiguous` where one kind has several objects and the question does not count
    them. The score is 1 over the number of kinds named: a question about two things may need only one.
    """
    asked = singular_words(question)
    text = f" {' '.join(asked)} "
    kinds: dict[str, list[Sequence[float]]] = {}
    for name, box in objects:
        kind = " ".join(singular_words(name))
        if kind and (f" {kind} " in text or (kind == "person" and not _person_stems().isdisjoint(asked))):
            kinds.setdefault(kind, []).append(box)
    if not kinds:
        return None
    boxes = tuple(box for kind in kinds.values() for box in kind)
    several = any(len(kind) > 1 for kind in kinds.values())
    return Match(boxes, 1 / len(kinds), several and not COUNTING.search(question))


def singular_words(text: str) -> list[str]:
    """The stems of a text's words in lower case, so that a plural equals its singular."""
    return [_stem(word) for word in re.findall(r"[a-z0-9]+", text.lower())]


@cache
def _person_stems() -> frozenset[str]:
    return frozenset(map(_stem, PERSON_WORDS))


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return _STEMMER.stemWord(_IRREGULAR.get(word, word))


def squeeze(text: str) -> str:
    """Case folded, without spaces and punctuation."""
    return _SPACES.sub("", text.casefold())


@lru_cache(maxsize=100_000)
def exact(text: str) -> str:
    """Case folded, without what does not tell one number from another.

    Signs, decimal points, `/`, `:` and `%` stay, and a space between two numbers; currencies, a comma between thousands
    and other punctuation go: "-$1,500.5" is "-1500.5", and "50 %" is "50%".
    """
    return _joined(_EXACT.findall(_THOUSANDS.sub("", text.casefold().replace("\u2212", "-")))).replace(",", ".")


def _joined(parts: Sequence[str]) -> str:
    """One text, with a space between two parts only where their digits would become one number."""
    text = ""
    for part in parts:
        text += f" {part}" if text[-1:].isdecimal() and part[:1].isdecimal() else part
    return text


def _centre(box: Sequence[float]) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
