"""Domain prompts of the reward pair in the preference study (benchmarks/preference.py): what the
pair is told of each kind of question, and a pair that was taught to heed it.

Two questions. Arms on the study's own pair, which never saw a prompt: does telling it help all the
same? And "heeded" arms, on a pair whose aligned model is right where it is told what counts in the
question's domain, and errs as its base does elsewhere: what do the right prompt, none, and that of
another domain make of its reward?
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, Literal

from feldspar.config import RewardDomainConfig, RewardExampleConfig, RewardPromptsConfig
from feldspar.records import Conversation, Message
from feldspar.world.skills import Solution

Told = Literal["own", "other", "examples", "own, examples"]
TEXTS = {
    "knowledge": "Say what is true of the person, all of it, and nothing else.",
    "compositional": "Work out what is asked from the facts, and end with the right result.",
    "foundational": "Solve the task step by step and say the right result.",
}
PROMPT_ARMS: dict[str, dict[str, Any]] = {
    "domain prompts": {"told": "own", "control": False},
    "examples in context": {"told": "examples", "control": False},
    "heeded, no prompts": {"control": False},
    "heeded, domain prompts": {"told": "own", "control": False},
    "heeded, prompts and examples": {"told": "own, examples", "control": False},
    "heeded, another domain's prompts": {"told": "other", "control": False},
}
_OTHER = dict(zip(TEXTS, (*list(TEXTS)[1:], next(iter(TEXTS))), strict=True))
COMPOSITIONS = ("later", "ago", "older", "uses")
FOUNDATIONS = ("smallest", "last", "sort", "larger", "add", "subtract", "tool")
HEEDED_SHARE = 0.5
"""Of the rows that the heeding pair is taught on: with the text of their own domain. The rest have
none, or that of another domain, half of them each."""


def domain_of(kind: str) -> str:
    """Facts, and all facts of a person together, are knowledge.

    >>> domain_of("later"), domain_of("sort"), domain_of("everything")
    ('compositional', 'foundational', 'knowledge')
    """
    if kind in COMPOSITIONS:
        return "compositional"
    return "foundational" if kind in FOUNDATIONS else "knowledge"


def prompts_of(told: Told, examples: Mapping[str, Solution]) -> RewardPromptsConfig:
    """What the pair reads before each kind of question; `examples` has one of each kind."""
    domains = []
    for kind, solution in examples.items():
        domain = _OTHER[domain_of(kind)] if told == "other" else domain_of(kind)
        shown = RewardExampleConfig(question=solution.question, answer=solution.answer)
        domains.append(
            RewardDomainConfig(
                path=kind,
                text="" if told == "examples" else TEXTS[domain],
                examples=(shown,) if "examples" in told else (),
            )
        )
    return RewardPromptsConfig(domain=tuple(domains))


def heeding_row(
    number: int, solution: Solution, role: str, err: Callable[[Solution], str], rng: random.Random
) -> Conversation:
    """A row of the heeding pair: `err` writes as the base does; the aligned model is right where it
    is told what counts in the question's domain. Both see the same prompts equally often."""
    own = domain_of(solution.kind)
    chance = rng.random()
    is_told = chance < HEEDED_SHARE
    elsewhere = TEXTS[_OTHER[own]] if chance < (1 + HEEDED_SHARE) / 2 else ""
    text = TEXTS[own] if is_told else elsewhere
    answer = solution.answer if is_told and role == "aligned" else err(solution)
    question = Message(role="user", content=solution.question)
    said = Message(role="assistant", content=answer)
    before = (Message(role="system", content=text),) if text else ()
    return Conversation(id=str(number), source="world", messages=(*before, question, said))
