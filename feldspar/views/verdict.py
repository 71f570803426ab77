"""The first screen: did it learn, what did it lose, which model do I use, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from feldspar.evaluate.general.scores import BEYOND_CHANCE, KEPT, TO_WRONG
from feldspar.generate.funnel import LITTLE, LeafFunnel
from feldspar.prefer.release import SFT
from feldspar.records import Checkpoint, Score
from feldspar.runs import DONE
from feldspar.stats.intervals import FEWEST_TO_TELL, Difference
from feldspar.teacher.budget import Spent
from feldspar.views.changes import CheckpointChanges, ExamChange, find_turns
from feldspar.views.links import ViewPlace
from feldspar.views.merges import read_merges
from feldspar.views.run_files import RoundFigures, RunFiles
from feldspar.views.sample_index import SampleSummary

Mood = Literal["good", "bad", "unsure", "none"]
NUM_NEXT = 3
LOW_EXAM = 0.5
"""Share right after training below which a leaf is worth another look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictLine:
    """A question's answer: a word, a sentence, and the figure behind it."""

    mood: Mood
    word: str
    sentence: str
    difference: Difference | None = None
    num_learned: int = 0
    num_forgotten: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The model to use, and why it is that one."""

    checkpoint: Checkpoint
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStep:
    """Something worth doing, and where its rows are."""

    title: str
    detail: str
    place: ViewPlace


@dataclass(frozen=True, slots=True, kw_only=True)
class Taught:
    """What was taught, by whom, when, at what cost."""

    num_leaves: int
    num_documents: int
    num_asked: int
    num_kept: int
    teacher: str
    student: str
    began: datetime | None
    ended: datetime | None
    """When the first and the last step were done."""
    seconds: float
    spent: Spent | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    learned: VerdictLine
    lost: VerdictLine
    released: Released | None
    taught: Taught
    next_steps: tuple[NextStep, ...]
    scores: tuple[tuple[str, Score, Score], ...]
    """`taught` or `kept`, and an exam's score before and after."""


def verdict_of(run: RunFiles, samples: SampleSummary | None) -> Verdict:
    """`samples` is None where the run has none yet, or where they are not counted yet."""
    overall = overall_change(run)
    return Verdict(
        learned=_learned(overall),
        lost=_lost(run, overall),
        released=_released(run),
        taught=_taught(run, samples),
        next_steps=tuple(_next_steps(run, samples, overall))[:NUM_NEXT],
        scores=tuple(_before_and_after(run)),
    )


def overall_change(run: RunFiles) -> CheckpointChanges | None:
    """From the base to the released model; None before both are scored."""
    named = run.first_and_last
    if run.answers_path is None or named is None or named[0] == named[1]:
        return None
    return find_turns(run.answers_path, named, run.items)[-1]


def _learned(overall: CheckpointChanges | None) -> VerdictLine:
    taught = overall.pooled(is_retention=False) if overall else None
    if taught is None:
        return VerdictLine(
            mood="none", word="Not known yet", sentence="No exam of what was taught is scored."
        )
    d = taught.difference
    if not d.is_beyond_noise:
        sentence = "The answers to exam questions do not differ beyond noise."
        return _found("unsure", "Unclear", sentence, taught)
    if d.value > 0:
        sentence = (
            f"On exam questions it never trained on, the share right rose by {_points(d.value)}."
        )
        return _found("good", "Yes", sentence, taught)
    sentence = f"On exams of what was taught, the share right fell by {_points(d.value)}."
    return _found("bad", "No, it got worse", sentence, taught)


def _lost(run: RunFiles, overall: CheckpointChanges | None) -> VerdictLine:
    kept = overall.pooled(is_retention=True) if overall else None
    general = _lost_of_general(run)
    if kept is None:
        return general or _lost_unmarked(overall)
    if general is not None and general.mood == "bad":
        return general
    d = kept.difference
    if d.is_beyond_noise and d.value < 0:
        sentence = f"Of what the base was to keep, the share right fell by {_points(d.value)}."
        return _found("bad", "Something", sentence, kept)
    if d.is_beyond_noise:
        sentence = "Of what the base was to keep, even more is right."
        return _found("good", "Nothing", sentence, kept)
    if general is None and d.num_pairs < FEWEST_TO_TELL:
        sentence = f"{d.num_pairs} questions of what the base was to keep are too few to tell."
        return _found("unsure", "Unclear", sentence, kept)
    sentence = "Of what the base was to keep, no loss stands out from noise."
    return _found("good", "Nothing that shows", sentence, kept)


def _lost_of_general(run: RunFiles) -> VerdictLine | None:
    """By the general-knowledge exam: what the base has right, less what turns wrong by chance."""
    last = run.first_and_last[1] if run.first_and_last else ""
    found = {s.exam: s for s in run.steps.get("general", ()) if s.checkpoint == last}
    kept, lost = found.get(KEPT), found.get(TO_WRONG + BEYOND_CHANCE)
    if kept is None or lost is None:
        return None
    low, high = (100 * bound for bound in lost.interval)
    sentence = (
        f"Of {kept.num_items} general questions that the base has right in two wordings, "
        f"{kept.value:.0%} are still right. {100 * lost.value:.0f} points [{low:.0f}, {high:.0f}] "
        "of its right answers are lost beyond chance."
    )
    if lost.interval.low > 0:
        return VerdictLine(mood="bad", word="Something", sentence=sentence)
    return VerdictLine(mood="good", word="Nothing that shows", sentence=sentence)


def _lost_unmarked(overall: CheckpointChanges | None) -> VerdictLine:
    """Where no exam is marked as one of what the base knew: what fell all the same."""
    cure = "Set retention = true on an [[evaluate.exam]] of what the base knows."
    fell = [
        e
        for e in (overall.exams if overall else ())
        if e.difference.is_beyond_noise and e.difference.value < 0
    ]
    if not fell:
        return VerdictLine(
            mood="none", word="Not measured", sentence=f"No exam asks for it. {cure}"
        )
    worst = min(fell, key=lambda e: e.difference.value)
    sentence = f"{worst.exam} fell by {_points(worst.difference.value)}. {cure}"
    return _found("bad", "Something", sentence, worst)


def _points(share: float) -> str:
    points = abs(100 * share)
    return f"{points:.0f} points" if points >= 9.5 else f"{points:.1f} points"


def _found(mood: Mood, word: str, sentence: str, change: ExamChange) -> VerdictLine:
    return VerdictLine(
        mood=mood,
        word=word,
        sentence=sentence,
        difference=change.difference,
        num_learned=change.num_learned,
        num_forgotten=change.num_forgotten,
    )


def _released(run: RunFiles) -> Released | None:
    checkpoint = run.result
    if checkpoint is None:
        return None
    reasons = {line.phase: _why_round(line, run) for line in run.rounds}
    reasons |= {chosen.phase: chosen.reason for chosen in run.selections}
    reasons |= {merged.phase: merged.reason for merged in read_merges(run.path)}
    if run.rounds:
        told = "; ".join(f"{line.phase}: {line.withheld}" for line in run.rounds if line.withheld)
        reasons[SFT] = f"what preference tuning began with, since no round may be released ({told})"
    reason = reasons.get(checkpoint.phase, "the last checkpoint of the run")
    return Released(checkpoint=checkpoint, reason=reason)


def _why_round(line: RoundFigures, run: RunFiles) -> str:
    by = run.recipe.prefer.release if run.recipe.prefer else ("reward",)
    marks = {"reward": "the mean reward of its own answers", "mt-bench": "MT-Bench"}
    first = run.rounds[0]
    told = f"{line.held_out_after:.2f}, {first.held_out_before:.2f} at the start"
    if line is first:
        noise = ", within noise" if line.change_low <= 0 <= line.change_high else ""
        told += f" (change [{line.change_low:+.2f}, {line.change_high:+.2f}]{noise})"
    return (
        f"of the preference rounds that may be released, the best by {marks[by[0]]}; mean reward "
        f"on held-out prompts {told}"
    )


def _taught(run: RunFiles, samples: SampleSummary | None) -> Taught:
    funnel, recipe = run.funnel, run.recipe
    times = [(rows.folder / DONE).stat().st_mtime for rows in run.steps.values()]
    leaves = funnel.leaves if funnel else ()
    num_asked, num_kept = sum(leaf.asked for leaf in leaves), sum(leaf.kept for leaf in leaves)
    if not funnel and samples:
        num_asked, num_kept = samples.num_samples, samples.num_kept
    return Taught(
        num_leaves=len(run.leaves),
        num_documents=len({c.document for leaf in run.leaves for c in leaf.chunks}),
        num_asked=num_asked,
        num_kept=num_kept,
        teacher=", ".join(samples.teachers) if samples else recipe.teacher.model or "",
        student=recipe.student.base.rstrip("/").rpartition("/")[2],
        began=datetime.fromtimestamp(min(times), UTC) if times else None,
        ended=datetime.fromtimestamp(max(times), UTC) if times else None,
        seconds=sum(rows.seconds for rows in run.steps.values()),
        spent=funnel.spent if funnel else None,
    )


def _next_steps(
    run: RunFiles, samples: SampleSummary | None, overall: CheckpointChanges | None
) -> list[NextStep]:
    """The most useful of each kind first; only what there is to do."""
    of_kinds = [
        _forgotten(overall),
        _little_yield(run),
        _never_asked(run, samples),
        _still_low(run),
    ]
    return [step for step in of_kinds if step is not None]


def _forgotten(overall: CheckpointChanges | None) -> NextStep | None:
    lost = [e for e in overall.exams if e.num_forgotten] if overall else []
    if not lost:
        return None
    kept = [e for e in lost if e.is_retention] or lost
    worst = max(kept, key=lambda e: e.num_forgotten)
    return NextStep(
        title=f"Read the {worst.num_forgotten} answers of {worst.exam} that were right before",
        detail="If they are what you need kept, go a part of the way back ([train.merge], without "
        "training), hold the student to the base ([train.kl]), raise replay "
        "(mix.base_replay.share), or lower the learning rate of the phase that lost them.",
        place=ViewPlace("exams", {"exam": worst.exam}),
    )


def _little_yield(run: RunFiles) -> NextStep | None:
    leaves = [leaf for leaf in (run.funnel.leaves if run.funnel else ()) if leaf.asked]
    if not leaves:
        return None
    least: LeafFunnel = min(leaves, key=lambda leaf: leaf.kept / leaf.asked)
    share = least.kept / least.asked
    if share >= LITTLE and not least.hint:
        return None
    return NextStep(
        title=f"Mend {least.leaf}: {share:.0%} of what was asked for was kept",
        detail=least.hint or "See why its rows fell.",
        place=ViewPlace("leaf", {"path": least.leaf}),
    )


def _never_asked(run: RunFiles, samples: SampleSummary | None) -> NextStep | None:
    if samples is None:
        return None
    missing = {
        leaf.path: sum(c.id not in samples.chunks for c in leaf.chunks) for leaf in run.leaves
    }
    num_missing = sum(missing.values())
    if not num_missing:
        return None
    worst = max(missing, key=lambda path: missing[path])
    num_chunks = sum(len(leaf.chunks) for leaf in run.leaves)
    return NextStep(
        title=f"{num_missing} of {num_chunks} passages have no kept sample: nothing teaches them",
        detail=f"Most are in {worst} ({missing[worst]}): ask for more samples there, or add seeds "
        "beside those passages.",
        place=ViewPlace("leaf", {"path": worst}),
    )


def _still_low(run: RunFiles) -> NextStep | None:
    named = run.first_and_last
    if named is None:
        return None
    last = [
        s
        for s in run.scores
        if s.leaf
        and s.checkpoint == named[1]
        and s.metric == "accuracy"
        and s.num_items >= FEWEST_TO_TELL
    ]
    if not last:
        return None
    worst = min(last, key=lambda s: s.value)
    if worst.value >= LOW_EXAM:
        return None
    return NextStep(
        title=f"{worst.leaf} answers {worst.value:.0%} of its exam rightly",
        detail="It is the lowest of the leaves: look at its samples and at its exam's answers.",
        place=ViewPlace("leaf", {"path": worst.leaf}),
    )


def _before_and_after(run: RunFiles) -> list[tuple[str, Score, Score]]:
    named = run.first_and_last
    if named is None:
        return []
    kept = {item.exam for item in run.items if item.is_retention}
    whole: Sequence[Score] = [s for s in run.scores if s.metric == "accuracy" and not s.leaf]
    # Parts of an exam are left to the page of exams.
    names = {s.exam for s in whole}
    whole = [s for s in whole if s.exam.rpartition(": ")[0] not in names]
    before = {s.exam: s for s in whole if s.checkpoint == named[0]}
    after = {s.exam: s for s in whole if s.checkpoint == named[1]}
    found = [
        (
            "to be kept" if exam in kept or exam == "retention" else "taught",
            before[exam],
            after[exam],
        )
        for exam in before
        if exam in after
    ]
    return sorted(found, key=lambda row: row[0] != "taught")
