"""Domain prompts: what both models of the reward pair read before a question, by its leaf.

A pair that is told what counts in answers of a domain gives a reward of that domain (Dr.SoW,
arXiv 2411.02481: an instruction, examples and a router). Here the taxonomy is the router.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from feldspar.config import PreferConfig, RewardDomainConfig, RewardPromptsConfig
from feldspar.config.reward_prompts import DEFAULT_DOMAIN
from feldspar.errors import RecipeError
from feldspar.records import Branch, Message
from feldspar.student.template.layout import OwnLayout, TemplateRefusal


class Framed(NamedTuple):
    """A question as the reward pair reads it."""

    messages: tuple[Message, ...]
    domain: str
    """Path of the domain whose prompt was put before it, or DEFAULT_DOMAIN; empty for none."""


def framed(messages: Sequence[Message], source: str, config: RewardPromptsConfig | None) -> Framed:
    """The messages of a question of the leaf `source` with what is read before them."""
    if config is None:
        return Framed(tuple(messages), "")
    domain = config.domain_of(source)
    if domain is None:
        name = DEFAULT_DOMAIN if config.default else ""
        return Framed(_with_text(config.default, messages, config), name)
    turns: list[Message] = []
    for example in domain.examples:
        turns.append(Message(role="user", content=example.question))
        turns.append(Message(role="assistant", content=example.answer))
    is_empty = not (domain.text or domain.examples)
    return Framed(
        _with_text(domain.text, [*turns, *messages], config), "" if is_empty else domain.path
    )


def _with_text(
    text: str, messages: Sequence[Message], config: RewardPromptsConfig
) -> tuple[Message, ...]:
    if not text:
        return tuple(messages)
    if config.turn == "system":
        return (Message(role="system", content=text), *messages)
    first, *rest = messages
    return (Message(role=first.role, content=f"{text}\n\n{first.content}"), *rest)


class PlacedLeaf(NamedTuple):
    """A leaf's path, and its branch."""

    path: str
    branch: Branch


def unused_domains(config: PreferConfig, leaves: Iterable[PlacedLeaf]) -> Iterator[str]:
    """What is wrong with the domains by the leaves there are, a line each with the cure."""
    if config.reward_prompts is None:
        return
    given = list(leaves)
    meant = Counter(d.path for p, _ in given if (d := config.reward_prompts.domain_of(p)))
    asked = {
        domain.path
        for path, branch in given
        if branch in config.branches and (domain := config.reward_prompts.domain_of(path))
    }
    for domain in config.reward_prompts.domain:
        place = f"prefer.reward_prompts names {domain.path!r}"
        if not meant[domain.path]:
            yield f"{place}, which no leaf lies in, or only leaves of a longer path; mend `path`"
        elif domain.path not in asked:
            yield (
                f"{place}, whose branch is not in prefer.branches, so no question of it is asked; "
                "take it out, or add the branch"
            )


def check_turns(folder: str, config: RewardPromptsConfig) -> None:
    """Raise RecipeError where the chat template in `folder` cannot write these prompts, or would
    leave a part of them out."""
    from transformers import AutoTokenizer

    layout = OwnLayout(AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    question = Message(role="user", content="?")
    for domain in config.domain:
        _check(layout, framed([question], domain.path, config).messages, folder, domain)
    if config.default:
        _check(layout, framed([question], "", config).messages, folder, None)


def _check(
    layout: OwnLayout, messages: Sequence[Message], folder: str, domain: RewardDomainConfig | None
) -> None:
    try:
        turns = layout(messages, False)
        said = [piece.text for turn in turns for piece in turn.prompt if piece.is_content]
        said += [turn.answer for turn in turns if turn.answer is not None]
        lost = [m.role for m in messages if not any(m.content.strip() == s.strip() for s in said)]
        why = f"it leaves out what the {lost[0]} says" if lost else ""
    except TemplateRefusal as refusal:
        why = str(refusal).partition("; use template")[0]
    if not why:
        return
    name = DEFAULT_DOMAIN if domain is None else repr(domain.path)
    cure = (
        'set prefer.reward_prompts.turn = "user", and the text stands before the question'
        if messages[0].role == "system"
        else "take the `examples` out"
    )
    raise RecipeError(
        f"prefer.reward_prompts, {name}: the chat template of {folder} cannot write it ({why}); "
        f"{cure}"
    )
