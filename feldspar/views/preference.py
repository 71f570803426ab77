"""Preference tuning: each round's candidates and rewards, and whether the policy got better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from typing import NamedTuple

from markupsafe import Markup

from feldspar.config import PreferConfig
from feldspar.config.reward_prompts import DEFAULT_DOMAIN
from feldspar.records import Candidate, Prompt
from feldspar.runs import open_step, read_rows
from feldspar.views.charts import Row, intervals
from feldspar.views.run_files import RoundFigures, RunFiles

PROMPTS_PER_ROUND = 8
"""That are shown with all their answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundView:
    figures: RoundFigures
    judged: tuple[tuple[str, float], ...]
    """MT-Bench of the round's model, where it was run."""

    @property
    def is_beyond_noise(self) -> bool:
        return self.figures.change_low > 0 or self.figures.change_high < 0


class DrawnAnswer(NamedTuple):
    """An answer of the policy, and how often it was drawn."""

    candidate: Candidate
    num_drawn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptView:
    """A prompt of a round and the policy's answers to it, the best reward first."""

    round: str
    question: str
    domain: str
    """Whose prompt the reward pair read before the question; empty where it read none."""
    answers: tuple[DrawnAnswer, ...]

    @property
    def num_drawn(self) -> int:
        return sum(answer.num_drawn for answer in self.answers)


class DomainView(NamedTuple):
    """A prompt that the reward pair reads before questions of a domain."""

    path: str
    text: str
    num_examples: int
    num_prompts: int
    """Of all rounds together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceView:
    rounds: tuple[RoundView, ...]
    prompts: tuple[PromptView, ...]
    """A few of each round."""
    changes: Markup | None
    method: str
    reward: str
    """What orders the answers, in a few words."""
    unit: str
    """Of rewards; empty where a reward model's own."""
    domains: tuple[DomainView, ...]
    """What the reward pair reads before questions, by their place in the taxonomy."""


def preference_of(run: RunFiles) -> PreferenceView:
    prefer = run.recipe.prefer
    unit = "nats" if prefer is None or prefer.reward == "log-ratio" else ""
    return PreferenceView(
        rounds=tuple(_round(figures) for figures in run.rounds),
        prompts=tuple(_prompts(run)),
        changes=_chart(run.rounds, unit),
        method=prefer.method if prefer is not None else "",
        reward="a reward model" if unit == "" else "a log ratio, in nats",
        unit=unit,
        domains=tuple(_domains(prefer, run.rounds)),
    )


def _domains(prefer: PreferConfig | None, rounds: Sequence[RoundFigures]) -> Iterator[DomainView]:
    if prefer is None or prefer.reward_prompts is None:
        return
    read: Counter[str] = Counter()
    for figures in rounds:
        read.update(figures.domains)
    for domain in prefer.reward_prompts.domain:
        yield DomainView(domain.path, domain.text, len(domain.examples), read[domain.path])
    if prefer.reward_prompts.default:
        text = prefer.reward_prompts.default
        yield DomainView(DEFAULT_DOMAIN, text, 0, read[DEFAULT_DOMAIN])


def _round(figures: RoundFigures) -> RoundView:
    judged = [
        (score.metric, score.value)
        for score in figures.scores.get(figures.phase, ())
        if score.exam == "mt-bench"
    ]
    return RoundView(figures=figures, judged=tuple(judged))


def _prompts(run: RunFiles) -> Iterator[PromptView]:
    """The first prompts of each round that is finished."""
    preferred = run.steps.get("preferred")
    if preferred is None:
        return
    prompts: Iterable[Prompt] = open_step(run.path, "prompts") or ()
    asked = {p.id: p.messages[-1].content for p in prompts}
    for figures in run.rounds:
        path = preferred.file(f"{figures.phase}/candidates.jsonl.zst")
        if not path.exists():
            continue
        groups = groupby(read_rows(path, Candidate), key=lambda candidate: candidate.prompt)
        for prompt, group in islice(groups, PROMPTS_PER_ROUND):
            answers = _answers(group)
            yield PromptView(
                round=figures.phase,
                question=asked.get(prompt, prompt),
                domain=answers[0].candidate.domain,
                answers=answers,
            )


def _answers(group: Iterable[Candidate]) -> tuple[DrawnAnswer, ...]:
    """Different texts once each, the best reward first."""
    of_text: dict[str, list[Candidate]] = {}
    for candidate in group:
        of_text.setdefault(candidate.text, []).append(candidate)
    drawn = (DrawnAnswer(same[0], len(same)) for same in of_text.values())
    return tuple(sorted(drawn, key=lambda answer: -answer.candidate.reward))


def _chart(rounds: tuple[RoundFigures, ...], unit: str) -> Markup | None:
    rows: list[Row] = []
    for r in rounds:
        change = r.held_out_after - r.held_out_before
        rows.append(
            {
                "name": r.phase,
                "series": "released" if r.released else "passed over",
                "value": change,
                "low": r.change_low,
                "high": r.change_high,
                "told": f"{r.phase}: {change:+.2f} [{r.change_low:+.2f}, {r.change_high:+.2f}]",
            }
        )
    if not rows:
        return None
    title = "mean reward of its own answers, minus before the round"
    title += f" ({unit})" if unit else ""
    series = list(dict.fromkeys(str(row["series"]) for row in rows))
    return intervals(rows, series=series, title=title, bounds=None)
