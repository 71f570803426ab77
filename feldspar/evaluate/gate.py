"""Whether a run's result is good enough: bounds against the lower ends of 95 % intervals. Pure but
for reading the run; `feldspar gate` prints it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from feldspar.config import GateConfig
from feldspar.errors import RunError
from feldspar.evaluate.comparing import BASE, Scored, open_scored
from feldspar.evaluate.general.questions import EXAM
from feldspar.records import ExamItem, Interval
from feldspar.stats.intervals import paired_shares_interval, proportion_interval

MAX_FORGOTTEN = 10
"""Answers that the card shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundCheck:
    """A bound of the recipe and what the run has."""

    name: str
    """`learned`, `gain`, `kept`, `loss`, or `leaf PATH`."""
    wanted: float
    """The lower end of the interval must be at least this."""
    value: float
    interval: Interval
    num_items: int

    @property
    def passes(self) -> bool:
        return self.interval.low >= self.wanted


class ForgottenAnswer(NamedTuple):
    """An item to be kept that the base had right and the result has not."""

    exam: str
    question: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """All bounds of a run, and what a reader of the card wants to see next."""

    checkpoint: str
    """`RUN@CHECKPOINT`."""
    checks: tuple[BoundCheck, ...]
    forgotten: tuple[ForgottenAnswer, ...]
    """A few of them."""
    num_forgotten: int

    @property
    def passes(self) -> bool:
        return all(check.passes for check in self.checks)


class _AnswerPair(NamedTuple):
    """The base's answer to an item and the result's."""

    exam: str
    leaf: str
    question: str
    said: tuple[str, str]
    before: bool
    after: bool


def check_gate(run_path: Path, config: GateConfig) -> GateReport:
    """Hold a run's result to the bounds, over items that nothing was chosen by.

    Raises RunError where the run is not scored, the recipe has no bounds, or no exam can tell.
    """
    if not config.has_bounds:
        raise RunError(
            f"{run_path}: its recipe has no bounds; add a [gate] table, or --set gate.learned=0.9"
        )
    before, after = open_scored(run_path, BASE), open_scored(run_path)
    taught = list(_pairs(before, after, _is_taught))
    old = [*_pairs(before, after, _is_old), *_general_pairs(before, after)]
    forgotten = [p for p in old if p.before and not p.after]
    return GateReport(
        checkpoint=after.name,
        checks=tuple(_checks(config, taught, old, run_path)),
        forgotten=tuple(
            ForgottenAnswer(p.exam, p.question, *p.said) for p in forgotten[:MAX_FORGOTTEN]
        ),
        num_forgotten=len(forgotten),
    )


def _checks(
    config: GateConfig, taught: Sequence[_AnswerPair], old: Sequence[_AnswerPair], run_path: Path
) -> Iterator[BoundCheck]:
    if config.learned is not None:
        yield _share("learned", config.learned, _asked(taught, "learned", run_path))
    if config.gain is not None:
        yield _change("gain", config.gain, _asked(taught, "gain", run_path))
    if config.kept is not None:
        known = [p for p in old if p.before]
        yield _share("kept", config.kept, _asked(known, "kept", run_path))
    if config.loss is not None:
        yield _change("loss", -config.loss, _asked(old, "loss", run_path))
    if config.leaf is not None:
        leaves = dict.fromkeys(p.leaf for p in _asked(taught, "leaf", run_path))
        for leaf in leaves:
            of_leaf = [p for p in taught if p.leaf == leaf]
            yield _share(f"leaf {leaf}", config.leaf, of_leaf)


def _asked(pairs: Sequence[_AnswerPair], bound: str, run_path: Path) -> Sequence[_AnswerPair]:
    if not pairs:
        cure = "the leaves' exams have no item that can be matched"
        if bound in ("kept", "loss"):
            cure = (
                "add an [[evaluate.exam]] with `retention`, of which the base has answers right, "
                "or let the general-knowledge exam be asked"
            )
        raise RunError(f"{run_path}: gate.{bound} has nothing to go by: {cure}")
    return pairs


def _share(name: str, wanted: float, pairs: Sequence[_AnswerPair]) -> BoundCheck:
    num_right = sum(pair.after for pair in pairs)
    return BoundCheck(
        name=name,
        wanted=wanted,
        value=num_right / len(pairs),
        interval=proportion_interval(num_right, len(pairs)),
        num_items=len(pairs),
    )


def _change(name: str, wanted: float, pairs: Sequence[_AnswerPair]) -> BoundCheck:
    gained = sum(pair.after and not pair.before for pair in pairs)
    lost = sum(pair.before and not pair.after for pair in pairs)
    return BoundCheck(
        name=name,
        wanted=wanted,
        value=(gained - lost) / len(pairs),
        interval=paired_shares_interval(gained, lost, len(pairs)),
        num_items=len(pairs),
    )


def _is_taught(item: ExamItem) -> bool:
    return item.origin != "file" and item.match != "choice"


def _is_old(item: ExamItem) -> bool:
    return item.is_retention


def _pairs(
    before: Scored, after: Scored, is_wanted: Callable[[ExamItem], bool]
) -> Iterator[_AnswerPair]:
    first = {answer.item: answer for answer in before.answers}
    for answer in after.answers:
        old, item = first.get(answer.item), after.items[answer.item]
        if old is None or old.is_right is None or answer.is_right is None or not is_wanted(item):
            continue
        said = (old.text, answer.text)
        yield _AnswerPair(
            item.exam, item.leaf or "", item.question, said, old.is_right, answer.is_right
        )


def _general_pairs(before: Scored, after: Scored) -> Iterator[_AnswerPair]:
    """Of the general-knowledge exam, both wordings of an item together."""
    first = {item.id: item for item in before.items_of(EXAM)}
    for item in after.items_of(EXAM):
        old = first.get(item.id)
        if old is not None and old.value is not None and item.value is not None:
            said = (old.said, item.said)
            yield _AnswerPair(EXAM, "", item.question, said, old.value == 1, item.value == 1)


def markdown_card(report: GateReport) -> str:
    """For a pull request: the verdict, a line for each bound, and what was forgotten."""
    verdict = "passes" if report.passes else "does not pass"
    lines = [
        f"### {_plain(report.checkpoint)} {verdict} its gate",
        "",
        "| bound | at least | found, 95 % | items | |",
        "|---|---:|---|---:|---|",
    ]
    for check in sorted(report.checks, key=lambda check: check.passes):
        low, high = check.interval
        found = f"{check.value:+.3f}" if check.name in ("gain", "loss") else f"{check.value:.3f}"
        lines.append(
            f"| {_plain(check.name)} | {check.wanted:g} | {found} [{low:.3f}, {high:.3f}] | "
            f"{check.num_items} | {'ok' if check.passes else '**below**'} |"
        )
    lines += ["", "The lower end of each interval is what counts; items that chose are left out."]
    if report.forgotten:
        lines += ["", f"Right before and wrong now: {report.num_forgotten} items to be kept."]
        lines += ["", "| question | before | now |", "|---|---|---|"]
        lines += [
            f"| {_plain(f.question)} | {_plain(f.before)} | {_plain(f.after)} |"
            for f in report.forgotten
        ]
    return "\n".join(lines) + "\n"


def _plain(text: str, limit: int = 120) -> str:
    """Of a model or a user, as one cell: no markup, links, mentions or HTML of theirs."""
    line = " ".join(text.split())[:limit]
    for letter in "\\`*_[]<>|#@!~":
        line = line.replace(letter, f"\\{letter}")
    return line
