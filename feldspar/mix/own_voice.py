"""Answers in the base's own words, where it says the same as the teacher.

A model that is trained on what it might have said itself is moved less by it (Yang et al. 2024,
"Self-Distillation Bridges Distribution Gap in Language Model Fine-Tuning", arXiv 2402.13669). The
base is shown a question with its answer and says the answer again. Only an answer with the same
content is taken; others stay the teacher's. Not every base is able to: how many were taken is told.
"""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from feldspar.config import OwnVoiceConfig, StudentConfig
from feldspar.files import write_text_whole
from feldspar.records import Checkpoint, Message, Sample
from feldspar.steps import Step, Workspace
from feldspar.student.inference.sample import Sampled, sample_answers
from feldspar.student.model import load_to_answer
from feldspar.text.sentences import words_compared
from feldspar.text.words import numbers_and_names

log = logging.getLogger(__name__)

OWN_VOICE_FILE = "own_voice.json"
ASKED_TOGETHER = 2048
LEAST_ABLE = 0.2
"""Part of the answers taken, below which the base is said to be hardly able."""
KEPT_WORDS = 0.5
"""Of the words that only the answer has, those that must be said again."""
MAX_LENGTH_RATIO = 2.0
MIN_LETTERS = 4
"""Shorter words are mostly grammar."""
_SHORT_NOT = re.compile(r"n['\u2019]t\b")
"""The end of "doesn't"."""
_TURNING = frozenset(("yes", "no", "only", "except", "unless", "all", "some", "every", "any"))
"""Words of any length that turn what is said."""
_NEGATIONS = frozenset(
    (
        *("not", "cannot", "never", "none", "nobody", "nothing", "nowhere", "neither", "nor"),
        *("without", "nicht", "kein", "keine", "keinen", "nie", "niemals", "ohne", "nein"),
        *("ne", "pas", "jamais", "sans", "non", "aucun", "aucune", "nunca", "sin", "ni"),
        *("senza", "mai", "n\u00e3o", "nao", "niet", "geen"),
    )
)
"""Others that do, and are compared as one."""
MAX_EXAMPLES = 3

INSTRUCTION = """Here are a question and its answer.

Question: {question}
Answer: {answer}

Answer the question again in your own words. Keep every name, every number and every fact of the \
answer, and add nothing. Reply with the answer alone."""


class Fallen(NamedTuple):
    """An answer of the base that was not taken."""

    reason: str
    question: str
    teacher: str
    base: str


class Retelling:
    """What became of the answers that the base was asked for."""

    def __init__(self) -> None:
        self.num_asked = self.num_taken = 0
        self.reasons: Counter[str] = Counter()
        self.examples: list[Fallen] = []

    def retold(self, sample: Sample, said: Sampled) -> Sample:
        """The sample with the base's answer where it says the same, else as it was."""
        text = said.text.strip()
        self.num_asked += 1
        reason = "cut off" if not said.ended else why_not_same(sample.question, sample.answer, text)
        if not reason:
            self.num_taken += 1
            return replace(sample, answer=text)
        self.reasons[reason] += 1
        if self.reasons[reason] <= MAX_EXAMPLES:
            self.examples.append(Fallen(reason, sample.question, sample.answer, text))
        return sample

    def as_json(self) -> str:
        told = {
            "num_asked": self.num_asked,
            "num_taken": self.num_taken,
            "reasons": dict(self.reasons.most_common()),
            "examples": [fallen._asdict() for fallen in self.examples],
        }
        return json.dumps(told, ensure_ascii=False, indent=1) + "\n"

    def tell(self) -> None:
        told = f"own voice: the base says {self.num_taken} of {self.num_asked} answers as well"
        if self.num_taken < LEAST_ABLE * self.num_asked:
            most = ", ".join(f"{reason} {count}" for reason, count in self.reasons.most_common(3))
            log.warning("%s (others: %s); it is hardly able to: take [own_voice] out", told, most)
        else:
            log.info("%s; the others stay the teacher's", told)


def say_again(
    workspace: Workspace,
    samples: Iterable[Sample],
    base: Checkpoint,
    config: OwnVoiceConfig,
    *,
    student: StudentConfig,
    seed: int,
) -> Iterator[Sample]:
    """All samples in their order, kept questions' answers in the base's words where they say the
    same.

    Writes `own_voice.json`: how many were taken, and why others were not, with examples.
    """
    model = load_to_answer(base.path, student)
    retelling = Retelling()
    left = iter(samples)
    while together := list(islice(left, ASKED_TOGETHER)):
        asked = [sample for sample in together if is_asked(sample, config)]
        drawn = sample_answers(
            model,
            [(Message(role="user", content=prompt_of(sample)),) for sample in asked],
            keys=[f"own voice {sample.id}" for sample in asked],
            temperature=config.temperature,
            max_new_tokens=config.max_new_tokens,
            seed=seed,
            progress=workspace.progress,
        )
        said: Mapping[str, Sampled] = {
            sample.id: answer for sample, (answer,) in zip(asked, drawn, strict=True)
        }
        for sample in together:
            yield retelling.retold(sample, said[sample.id]) if sample.id in said else sample
    write_text_whole(workspace.folder / OWN_VOICE_FILE, retelling.as_json())
    retelling.tell()


OWN_VOICE_STEP = Step("own-voice", say_again, version=3)


def is_asked(sample: Sample, config: OwnVoiceConfig) -> bool:
    """Whether the base is to say its answer again: no text, and no refusal to answer."""
    is_question = sample.kind not in ("document", "unanswerable")
    return sample.is_kept and is_question and sample.branch in config.branches


def prompt_of(sample: Sample) -> str:
    return INSTRUCTION.format(question=sample.question, answer=sample.answer)


def why_not_same(question: str, answer: str, said: str) -> str:
    """Why the base's words do not say what the answer says; empty where they do.

    Names and numbers must be the same, and so must words that turn what is said, such as "not" and
    "only". Of the other words that only the answer has, half must be there, and none may have been
    replaced: a synonym looks like an opposite. It must not be twice as long. Scripts without spaces
    are not judged.

    >>> why_not_same("Where does Zorbo live?", "Zorbo lives in Arden.", "He lives in Tring.")
    'a name or a number is missing'
    """
    question, answer, said = (_SHORT_NOT.sub(" not", x) for x in (question, answer, said))
    words, known = set(words_compared(said)), set(words_compared(f"{question} {answer}"))
    if not words:
        return "nothing is said"
    if any(len(word) == 1 and word > "\u0e00" for word in words | known):
        return "written without spaces"
    if _polarity(words) != _polarity(words_compared(answer)):
        return "it is turned round"
    telling = set(words_compared(" ".join(numbers_and_names(answer))))
    if not words >= telling:
        return "a name or a number is missing"
    if not known.issuperset(words_compared(" ".join(numbers_and_names(said)))):
        return "a name or a number is added"
    own = set(words_compared(answer)) - set(words_compared(question)) - telling
    own = {word for word in own if len(word) >= MIN_LETTERS}
    if len(own & words) < KEPT_WORDS * len(own):
        return "too little of it is said"
    if own - words and any(len(word) >= MIN_LETTERS for word in words - known):
        return "a word is replaced"
    if len(words_compared(said)) > MAX_LENGTH_RATIO * len(words_compared(answer)):
        return "too long"
    return ""


def _polarity(words: Iterable[str]) -> set[str]:
    said = set(words)
    return (said & _TURNING) | ({"not"} if said & _NEGATIONS else set())
