"""Mutated replies of a teacher through generating, with a real journal: what is kept obeys its
limits, what falls says why, the funnel adds up, and a second time nothing is asked."""

from __future__ import annotations

import logging
import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mutants import STRINGS, mutant_reply

from feldspar.config import GenerateConfig, TeacherConfig
from feldspar.endpoint.calls import (
    ChatCall,
    Completion,
    Completions,
    PromptCall,
    Usage,
    sound_text,
)
from feldspar.endpoint.endpoint import UNHURRIED, Turn
from feldspar.endpoint.faults import Refused
from feldspar.endpoint.openai_completions import PromptToken
from feldspar.endpoint.replicas import ServersHealth
from feldspar.errors import TeacherError
from feldspar.generate import FUNNEL_FILE, generate_samples, make_exams, read_funnel
from feldspar.generate.funnel import FELL_BEFORE
from feldspar.models.model import CannotScore, Continuations, LogProb
from feldspar.progress import SILENT, Progress
from feldspar.records import Chunk, ExamItem, Leaf, Sample, Seed
from feldspar.steps import Workspace
from feldspar.teacher import Journal, Teacher
from feldspar.text import split_words
from feldspar.text.printable import printable

_MARKERS = re.compile(
    r"^\[/?(question|answer|context|end)( \d+)?\]|\[/(question|answer)\]\s*$", re.I | re.M
)
_WORDS = ("amber", "birch", "copper", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty")


def _seeds(pairs: Sequence[tuple[str, str]], context: str | None = None) -> tuple[Seed, ...]:
    return tuple(
        Seed(id=f"s{number}", question=question, answer=answer, context=context)
        for number, (question, answer) in enumerate(pairs)
    )


LEAVES = [
    Leaf(
        path="foundational_skills/sums",
        branch="foundational",
        task_description="Add two numbers.",
        seeds=_seeds([("What is 1 + 1?", "1 + 1 = 2."), ("What is 2 + 3?", "2 + 3 = 5.")]),
        exam_seeds=_seeds([("What is 7 + 8?", "7 + 8 = 15.")]),
    ),
    Leaf(
        path="compositional_skills/baskets",
        branch="compositional",
        task_description="Count what is there.",
        seeds=_seeds([("What is 1 + 1?", "1 + 1 = 2.")], context="Basket 1"),
    ),
    Leaf(
        path="knowledge/town",
        branch="knowledge",
        task_description="Where people live.",
        seeds=_seeds([("Where does Ann live?", "Ann lives in Rome.")]),
        chunks=tuple(
            Chunk(id=f"c{n}", document="d", text=f"The home of {a} is {b}.", num_tokens=6)
            for n, (a, b) in enumerate([("Zorbo", "Tarn"), ("Mirad", "Ulm"), ("Bel", "Hove")])
        ),
    ),
]


class MutantModel:
    """Writes what a good teacher would, and mutates half of it. `complete` is all that is asked."""

    name, revision, place, concurrency = "mutant", "", "in this process", 8
    key = answers_key = "mutant"
    health = ServersHealth()

    def __init__(self, dice: random.Random, share: float) -> None:
        self.dice, self.share = dice, share
        self.num_replies = self.num_mutated = 0

    async def __aenter__(self) -> MutantModel:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def drain(self) -> None: ...

    async def complete(self, call: ChatCall | PromptCall, turn: Turn = UNHURRIED) -> Completions:
        await turn.admit()
        assert isinstance(call, ChatCall)
        self.num_replies += 1
        text = _good_reply(turn.stage, call.messages[-1]["content"], self.dice)
        if self.dice.random() < 0.02:
            is_about_content = self.dice.random() < 0.5
            reason = printable(f"no {self.dice.choice(STRINGS)}")
            raise Refused(reason, is_about_content=is_about_content)
        if self.dice.random() < self.share:
            # As every protocol hands it on.
            text = sound_text(mutant_reply(text, self.dice))
            self.num_mutated += 1
        reason = "length" if self.dice.random() < 0.05 else "stop"
        return Completions((Completion(text or ".", reason),), Usage(10, 5))  # type: ignore[arg-type]

    async def prompt_tokens(
        self, prompt: str | Sequence[int], turn: Turn = UNHURRIED
    ) -> list[PromptToken]:
        raise CannotScore("it writes")

    async def score(
        self, rows: Sequence[Continuations], progress: Progress = SILENT
    ) -> list[list[LogProb]]:
        raise CannotScore("it writes")


def _good_reply(stage: str, prompt: str, dice: random.Random) -> str:
    if stage.startswith("judge"):
        if "rating" in prompt.lower():
            return f"Explanation: seen.\nRating: {dice.choice((1, 2, 3, 3))}"
        return f"Explanation: seen.\nVerdict: {dice.choice(('YES', 'YES', 'YES', 'NO'))}"
    if stage == "skill-answer":
        return f"The {dice.choice(_WORDS)} is {dice.randrange(10**6)}."
    if stage == "skill-context":
        return "\n".join(f"[Context]\nBasket {dice.randrange(10**6)}\n[End]" for _ in range(4))
    asked = [
        f"Where is the {dice.choice(_WORDS)} number {dice.randrange(10**6)}?" for _ in range(4)
    ]
    if stage == "knowledge-pairs":
        return "\n".join(
            f"[Question]\n{q}\n[Answer]\nIn {dice.choice(_WORDS)}.\n[End]" for q in asked
        )
    return "\n".join(f"[Question]\n{q}\n[End]" for q in asked)


def generate_once(folder: Path, dice: random.Random) -> str:
    """All leaves once, with limits drawn."""
    logging.disable(logging.WARNING)
    config = GenerateConfig(
        samples_per_seed=dice.choice((4, 9)),
        calls_per_chunk=3,
        exam_items=4,
        exam_choices=dice.choice((0, 3)),
        min_rating=dice.choice((1, 2, 3)),
        min_answer_words=dice.choice((0, 3)),
        max_answer_words=dice.choice((None, 5, 40)),
        target=dice.choice((None, None, 5)),
    )
    model = MutantModel(dice, dice.choice((0.2, 0.5, 1.0)))
    teacher = TeacherConfig(failure_budget=1.0)
    found = _generate(folder / "a", folder / "journal", model, teacher, config)
    if isinstance(found, str):
        return f"tried x{max(1, model.num_mutated)}\n{found} x1"
    exams, samples = found
    for leaf in LEAVES:
        _check_leaf(leaf, [s for s in samples if s.leaf == leaf.path], config, folder / "a")
    assert len({sample.id for sample in samples}) == len(samples)
    for item in exams:
        assert all((item.question.strip(), item.reference.strip())), item
        (item.question + item.reference).encode()
        assert not _MARKERS.search(item.question), item
    before, num_mutated = model.num_replies, model.num_mutated
    refused = any((s.rejected_because or "").startswith("teacher") for s in samples)
    if not refused:
        again = _generate(folder / "b", folder / "journal", model, teacher, config)
        if model.num_replies == before:
            assert again == found, "another result of the same answers"
    kept = sum(sample.is_kept for sample in samples)
    return "\n".join(
        [
            f"tried x{num_mutated}",
            f"replies x{before}",
            f"kept samples x{kept}",
            f"rejected samples x{len(samples) - kept}",
            f"exam items x{len(exams)}",
        ]
    )


def _generate(
    folder: Path, journal: Path, model: MutantModel, teaching: TeacherConfig, config: GenerateConfig
) -> tuple[list[ExamItem], list[Sample]] | str:
    folder.mkdir()
    with Journal(journal) as opened:
        teacher = Teacher(model, teaching, opened)
        try:
            exams = list(
                make_exams(
                    Workspace(folder=folder), LEAVES, config, teacher=teacher, judge=teacher, seed=1
                )
            )
            samples = generate_samples(
                Workspace(folder=folder),
                LEAVES,
                config,
                teacher=teacher,
                judge=teacher,
                avoid=exams,
                seed=1,
            )
            return exams, list(samples)
        except TeacherError:
            return "stopped for too many refusals"


def _check_leaf(leaf: Leaf, samples: list[Sample], config: GenerateConfig, folder: Path) -> None:
    (funnel,) = [f for f in read_funnel(folder / FUNNEL_FILE).leaves if f.leaf == leaf.path]
    stages = [funnel.asked, funnel.answered, funnel.parsed, funnel.judged, funnel.distinct]
    stages += [funnel.clean, funnel.kept, 0]
    assert stages == sorted(stages, reverse=True), funnel
    kept = [sample for sample in samples if sample.is_kept]
    assert funnel.kept == len(kept), (funnel, len(kept))
    assert sum(reason.count for reason in funnel.reasons) == funnel.asked - funnel.kept, funnel
    pairs = Counter((s.question, s.answer, s.context) for s in kept)
    assert not pairs or max(pairs.values()) == 1, pairs.most_common(1)
    for sample in samples:
        "".join((sample.question, sample.answer, sample.context or "")).encode()
        if not sample.is_kept:
            reason = str(sample.rejected_because)
            assert reason.partition(":")[0] in FELL_BEFORE, sample
            continue
        assert all((sample.question.strip(), sample.answer.strip())), sample
        for text in (sample.question, sample.answer, sample.context or ""):
            assert not _MARKERS.search(text), sample
        for judgment in sample.judgments:
            assert judgment.value in (1.0, 2.0, 3.0), sample
            least = config.min_rating if judgment.criterion == "answer" else 1
            assert judgment.value >= least, sample
        assert sample.judgments, sample
        least, most = config.min_answer_words, config.max_answer_words
        assert least <= len(split_words(sample.answer)) <= (most or math.inf), sample
