"""A teacher without knowledge: questions and answers cut out of the text it is shown.

It lets anyone try the whole pipeline on documents of their own. It is for trying, not for quality:
a question asks who, what, when, where or how many where rules read an English sentence (english.py,
encyclopedic.py), else it masks a word of a sentence; or it asks what is said of something. Parts of
the text are the answer. For skills it sets the leaf's own examples together in new pairs.
"""

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest

from feldspar.text.sentences import cut_sentences, split_sentences, words_compared, words_of
from feldspar.text.words import numbers_and_names
from feldspar.world import encyclopedic, english
from feldspar.world.encyclopedic import with_subjects
from feldspar.world.sections import Block, split_passages

MASK = "____"
FOUND_SHARE = 0.8
"""A sentence is taken from a text when this part of its words stands there."""


@lru_cache(maxsize=512)
def make_pairs(document: str, seed: int) -> tuple[Block, ...]:
    """All question-answer pairs of a passage, two short ones to each long one while both last.

    Empty where the text has no sentence to ask about.
    """
    rng = rng_of(seed, document)
    sentences = split_sentences(document)
    statements = [sentence for sentence in sentences if _is_statement(sentence)] or sentences
    questions = _questions(statements, rng)
    masked = {s: [_masked(s, span) for span in _maskable(s, rng)] for s in statements}
    masked = {s: found for s, found in masked.items() if not questions[s]}
    short = _in_rounds(questions, rng) + _in_rounds(masked, rng)
    return tuple(interleave(short, _topics(statements, rng)))


def interleave(short: Sequence[Block], long: Sequence[Block]) -> list[Block]:
    """Two short ones, one long one, and so on; the rest of either at the end."""
    mixed: list[Block] = []
    for index in range(max((len(short) + 1) // 2, len(long))):
        mixed += short[2 * index : 2 * index + 2]
        mixed += long[index : index + 1]
    return mixed


def rng_of(seed: int, text: str) -> random.Random:
    """The same draws for the same text, whatever is in it."""
    content = f"{seed} {text}".encode("utf-8", "surrogatepass")
    return random.Random(hashlib.sha256(content).digest())


def make_contexts(examples: Sequence[Block], seed: int) -> list[Block]:
    """New contexts from old ones: their sentences, turned round so that another comes first."""
    made = []
    for example in examples:
        sentences = split_sentences(example.context)
        for turn in range(1, len(sentences)):
            made.append(Block(context=" ".join(sentences[turn:] + sentences[:turn])))
    rng_of(seed, str(made)).shuffle(made)
    return made or [Block(context=example.context) for example in examples if example.context]


def make_questions(examples: Sequence[Block], context: str, seed: int) -> list[Block]:
    """The examples' questions: two by two, or alone where a context is shown."""
    asked = list(dict.fromkeys(example.question for example in examples if example.question))
    if context or len(asked) < 2:
        made = [Block(question=question) for question in asked]
    else:
        made = [
            Block(question=f"{_FIRST} {one}\n{_THEN} {other}")
            for one in asked
            for other in asked
            if one != other
        ]
    rng_of(seed, str(made)).shuffle(made)
    return made


def answer(question: str, context: str, examples: Sequence[Block]) -> str:
    """What the examples answer to the most similar question, or the context's closest sentence."""
    if context:
        sentences = split_sentences(context) or [context.strip()]
        return max(sentences, key=lambda sentence: _likeness(question, sentence))
    match = _PAIR.fullmatch(question.strip())
    if match is None:
        return _closest(question, examples)
    one, other = (_closest(part, examples) for part in match.groups())
    return f"{_FIRST} {one}\n{_THEN} {other}"


def make_turned(document: str, seed: int) -> list[Block]:
    """What is said of somebody or something, asked for whom: where the sentence begins with it."""
    made: dict[str, Block] = {}
    for sentence in split_sentences(document):
        for subject in english.subjects_of(sentence):
            rest = sentence[len(subject) :].strip(" .")
            if sentence.casefold().startswith(subject.casefold()) and rest:
                question = f'Of whom or what is it said: "{MASK} {rest}"?'
                made.setdefault(question, Block(question=question, answer=sentence))
    blocks = list(made.values())
    rng_of(seed, str(blocks)).shuffle(blocks)
    return blocks


def make_joined(document: str, seed: int) -> list[Block]:
    """Somebody or something of each of two passages, and the first that is said of both."""
    passages = split_passages(document)
    said: list[dict[str, str]] = [{} for _ in passages]
    for place, passage in enumerate(passages):
        for sentence in split_sentences(passage):
            for subject in english.subjects_of(sentence):
                said[place].setdefault(subject, sentence)
    made = [
        Block(question=f"Tell me about {one} and about {other}.", answer=f"{first} {second}")
        for one, first in (said[0] if len(said) == 2 else {}).items()
        for other, second in said[1].items()
        if one not in said[1] and other not in said[0]
    ]
    rng_of(seed, str(made)).shuffle(made)
    return made


def make_untold(document: str, examples: Sequence[Block], seed: int) -> list[Block]:
    """The examples' questions about what this text does not name."""
    known = set(words_compared(document))
    made = [
        Block(question=example.question, answer=f"The text does not tell: {example.question}")
        for example in examples
        if not known.issuperset(words_compared(" ".join(numbers_and_names(example.question))))
    ]
    rng_of(seed, str(made)).shuffle(made)
    return made


def make_about(statements: Sequence[str], turn: int, seed: int) -> list[Block]:
    """A question about each statement, another in another turn."""
    made = []
    for statement in statements:
        forms = make_pairs(statement, seed)
        made += [forms[turn % len(forms)]] if forms else []
    return made


def focus(document: str, question: str) -> str:
    """The sentence that is the closest to a question, with those before and after it."""
    sentences = split_sentences(document) or [document.strip()]
    best = max(range(len(sentences)), key=lambda place: _likeness(question, sentences[place]))
    return " ".join(sentences[max(best - 1, 0) : best + 2])


def is_faithful(document: str, text: str) -> bool:
    """Whether the words of each sentence of a text are found in the document."""
    known = set(words_compared(document))
    sentences = [words for part in cut_sentences(text) if (words := words_compared(part))]
    return bool(sentences) and all(
        sum(word in known for word in words) >= FOUND_SHARE * len(words) for words in sentences
    )


_FIRST, _THEN = "First:", "Then:"
_PAIR = re.compile(rf"{_FIRST} (.*?)\n{_THEN} (.*)", re.DOTALL)
_ENDS = frozenset(".!?\u061f\u0964\u3002\uff01\uff1f")
_LONG_WORD = 7


def _is_statement(sentence: str) -> bool:
    """Whether a text is a sentence, and no heading, list or fragment of one."""
    ends = sentence.rstrip("\"'\u201d\u2019)")[-1:]
    commas = len(re.findall(r"[,;|\u3001\u060c]", sentence))
    is_list = ":" not in sentence and commas > len(words_compared(sentence)) / 3
    return ends in _ENDS and not sentence[0].islower() and not is_list


def _in_rounds(forms: Mapping[str, Sequence[Block]], rng: random.Random) -> list[Block]:
    """Each sentence asked about once, then each in another form, as long as forms last."""
    made: dict[str, Block] = {}
    for turn in range(max(map(len, forms.values()), default=0)):
        for sentence in rng.sample(list(forms), len(forms)):
            for block in forms[sentence][turn : turn + 1]:
                # Two sentences may define one thing: the first that is drawn does.
                made.setdefault(block.question, block)
    return list(made.values())


def _questions(sentences: Sequence[str], rng: random.Random) -> dict[str, list[Block]]:
    """Questions about the parts of each sentence that rules read; of others none."""
    common = frozenset(re.findall(r"\b[a-z]+\b", " ".join(sentences)))
    clear = with_subjects(sentences)
    return {
        sentence: _forms(sentence, rng) or encyclopedic.ask_about(named, common)
        for sentence, named in zip(sentences, clear, strict=True)
    }


def _forms(sentence: str, rng: random.Random) -> list[Block]:
    """Each fact of a plain sentence in several forms, one form of each in turn."""
    asked = [
        [Block(question=question, answer=fact.answer) for question in fact.questions]
        for fact in english.ask_about(sentence)
    ]
    # Another passage, or another draw, begins with another form.
    turned = [forms[(k := rng.randrange(len(forms))) :] + forms[:k] for forms in asked]
    return [block for turn in zip_longest(*turned) for block in turn if block is not None]


def _masked(sentence: str, span: tuple[int, int]) -> Block:
    gap = f"{sentence[: span[0]]}{MASK}{sentence[span[1] :]}"
    return Block(question=f'Which word is missing: "{gap}"', answer=sentence)


def _maskable(sentence: str, rng: random.Random) -> list[tuple[int, int]]:
    """Where up to three of the longer words of a sentence stand, in a random order."""
    spans = [match.span() for match in re.finditer(r"[^\W_]+", sentence)]
    longest = sorted(spans, key=lambda span: span[0] - span[1])[:6]
    # A run of a script without spaces is a clause: two characters of it are masked.
    cut = [
        (start, start + 2 if len(words_of(sentence[start:end])) > 1 else end)
        for start, end in longest
    ]
    inner = [(start, end) for start, end in cut if words_of(sentence[:start] + sentence[end:])]
    return rng.sample(inner, min(3, len(inner)))


def _topics(sentences: list[str], rng: random.Random) -> list[Block]:
    """What is said of a word, for the words that two to four sentences share, names first."""
    places: dict[str, list[str]] = {}
    for sentence in sentences:
        for word in dict.fromkeys(re.findall(r"\b[^\W\d_]{3,20}\b", sentence)):
            # A short word in small letters is mostly grammar.
            is_name = not word.islower() and not sentence.startswith(word)
            if is_name or len(word) >= _LONG_WORD:
                places.setdefault(word, []).append(sentence)
    shared = [word for word, found in places.items() if 2 <= len(found) <= 4]
    if not shared:
        shared = sorted(places, key=len, reverse=True)[:8]
    rng.shuffle(shared)
    shared.sort(key=lambda word: word.islower())
    made = [
        Block(question=f'What is said about "{word}"?', answer=" ".join(places[word][:3]))
        for word in shared
    ]
    return _portraits(sentences, rng) + made


def _portraits(sentences: list[str], rng: random.Random) -> list[Block]:
    """All that is said of a person or a thing that two sentences or more have as their subject."""
    told: dict[str, list[str]] = {}
    for sentence in sentences:
        for subject in english.subjects_of(sentence):
            told.setdefault(subject, []).append(sentence)
    found = [(subject, said) for subject, said in told.items() if len(said) > 1]
    return [
        Block(question=form.format(subject), answer=" ".join(said[:_MAX_TOLD]))
        for form in _PORTRAIT_FORMS
        for subject, said in rng.sample(found, len(found))
    ]


_MAX_TOLD = 5
_PORTRAIT_FORMS = ("Tell me about {}.", "What do you know about {}?", "Describe {}.")


def _closest(question: str, examples: Sequence[Block]) -> str:
    known = [example for example in examples if example.answer]
    if not known:
        return question.strip()
    return max(known, key=lambda example: _likeness(question, example.question)).answer


def _likeness(text: str, other: str) -> float:
    """Shared words over all words, 0 to 1."""
    one, two = set(words_compared(text)), set(words_compared(other))
    return len(one & two) / max(len(one | two), 1)
