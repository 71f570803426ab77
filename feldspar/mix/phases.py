"""What each phase sees, by reference: its own samples and data, earlier phases, general data."""

from __future__ import annotations

import json
import logging
import math
import statistics
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import compress, islice, pairwise
from pathlib import Path
from typing import Literal

from feldspar.config import MixConfig, PhaseConfig
from feldspar.errors import RecipeError
from feldspar.files import write_text_whole
from feldspar.mix.files import BadRow, read_file
from feldspar.mix.rows import Split, SplitWriter
from feldspar.records import (
    SHOWN_KINDS,
    Branch,
    Conversation,
    Message,
    Phase,
    Sample,
    Source,
    user_turn,
)
from feldspar.steps import Step, Workspace
from feldspar.tokens.count import TokenCounter

log = logging.getLogger(__name__)

_COUNTED_TOGETHER = 4096

BASE_REPLAY = "base replay"
"""Name of the source that every phase draws its general data from."""
DOCUMENTS = "documents"
"""Name of the source of a phase's texts, where it says how many of its rows they are."""


@dataclass
class _SeenSamples:
    """What went by: samples asked for and kept, and the split of each branch."""

    num_asked: Counter[Branch] = field(default_factory=Counter)
    num_kept: Counter[Branch] = field(default_factory=Counter)
    lengths: dict[Branch, array[int]] = field(default_factory=dict)
    """Of the kept answers of each branch that is split, in tokens, in their order."""
    longest_short: dict[Branch, float] = field(default_factory=dict)
    """In tokens: answers up to this long are short."""


def mix_phases(
    workspace: Workspace,
    samples: Iterable[Sample],
    config: MixConfig,
    *,
    phases: Sequence[PhaseConfig],
    data: Mapping[str, Path | Iterable[Conversation]],
    base_replay: Path | Iterable[Conversation] | None,
    counter: TokenCounter,
) -> Iterator[Phase]:
    """Write each phase's rows once into the workspace; what is replayed is a reference to them.

    `samples` is gone through twice. `data` holds the files or rows of `[[data]]` by name,
    `base_replay` those of `mix.base_replay`. Rows that cannot be used are counted, logged, and
    listed with their reasons in `skipped.jsonl`. Raises RecipeError for a phase without rows.
    """
    assert (base_replay is None) == (config.base_replay is None), base_replay
    check_phases(phases, config)
    folder = workspace.folder
    folder.mkdir(parents=True, exist_ok=True)
    own = _write_samples(samples, config, phases, counter, folder)
    skipped: list[BadRow] = []
    held_out = _held_out(config, phases)
    used = {n for phase in phases for n in (*phase.data, *(r.data for r in phase.replay if r.data))}
    given = {
        name: _write_data(
            data[name], name, _rows_path(folder, f"data-{number}", name), config, skipped, held_out
        )
        for number, name in enumerate(sorted(used), start=1)
    }
    general = base_replay and _write_data(
        base_replay, BASE_REPLAY, folder / "base-replay.jsonl.zst", config, skipped, held_out
    )
    _report_skipped(skipped, folder)
    own = {p.name: (*own[p.name], *(given[name] for name in p.data)) for p in phases}
    for phase in phases:
        splits = [*own[phase.name], *_replayed(phase, own, given)]
        if general and config.base_replay and config.base_replay.share:
            rows = replace(general.rows, share=config.base_replay.share)
            splits.append(general._replace(rows=rows))
        yield _as_phase(phase, [_as_wanted(split, phase, splits) for split in splits])


PHASES_STEP = Step("phases", mix_phases, version=2)


def is_replayed(source: Source) -> bool:
    """Whether a phase draws it again, and not for itself: its own texts are a share as well."""
    is_drawn = source.fraction is not None or source.share is not None
    return is_drawn and source.name != DOCUMENTS


def warnings(config: MixConfig, phases: Sequence[PhaseConfig]) -> list[str]:
    """What a mixture leaves unprotected, one sentence each; METHOD: replay keeps earlier phases,
    only base replay keeps the base."""
    found = []
    if config.base_replay is None or config.base_replay.share == 0:
        found.append(
            "the base is unprotected: no phase mixes in general data, so what the base knows may "
            "be washed out; add [mix.base_replay]"
        )
    for earlier, phase in pairwise(phases):
        if not phase.replay:
            found.append(
                f"phase {phase.name!r} replays no earlier phase, so what {earlier.name!r} taught "
                "may be forgotten; add [[train.phase.replay]]"
            )
    return found


def check_phases(phases: Sequence[PhaseConfig], config: MixConfig) -> None:
    taken = {BASE_REPLAY, DOCUMENTS, *(phase.name for phase in phases)}
    base_share = config.base_replay.share if config.base_replay else 0.0
    for phase in phases:
        total = base_share + sum(replay.share or 0.0 for replay in phase.replay)
        if total >= 1:
            raise RecipeError(
                f"phase {phase.name!r}: replayed shares add up to {total:g}, which leaves no room "
                "for its own rows; keep their sum below 1"
            )
        if not _all_branches(phase) and not phase.data:
            raise RecipeError(f"phase {phase.name!r} names neither branches nor data; add one")
        if clash := taken & set(phase.data):
            raise RecipeError(
                f"[[data]] {clash.pop()!r} is called as a phase or source is; give it another name"
            )


def _write_samples(
    samples: Iterable[Sample],
    config: MixConfig,
    phases: Sequence[PhaseConfig],
    counter: TokenCounter,
    folder: Path,
) -> dict[str, tuple[Split, ...]]:
    """One file of taxonomy samples per phase that names branches."""
    seen = _look_through(samples, config, phases, counter)
    held_out = _held_out(config, phases)
    mixing = [(n, phase) for n, phase in enumerate(phases, start=1) if _all_branches(phase)]
    with ExitStack() as stack:
        writers = {
            phase.name: _PhaseWriter(phase, number, folder, held_out, stack)
            for number, phase in mixing
        }
        for sample, length in _with_lengths(samples, seen):
            for writer in writers.values():
                writer.write(sample, length, config)
        for writer in writers.values():
            writer.check(seen)
    return {p.name: writers[p.name].splits() if p.name in writers else () for p in phases}


class _PhaseWriter:
    """The taxonomy's rows of a phase; texts in a file of their own where it says how many."""

    def __init__(
        self, phase: PhaseConfig, number: int, folder: Path, held_out: float, stack: ExitStack
    ) -> None:
        def open_rows(name: str, kind: str) -> SplitWriter:
            path = _rows_path(folder, f"{kind}-{number}", phase.name)
            return stack.enter_context(SplitWriter(name, path, held_out))

        self._phase = phase
        self._rows = open_rows(phase.name, "phase")
        self._texts = open_rows(DOCUMENTS, "documents") if phase.documents else None

    def write(
        self, sample: Sample, length: Literal["short", "long", "all"], config: MixConfig
    ) -> None:
        """Write a sample where it belongs, if it is of this phase."""
        is_apart = sample.kind == "document" and self._phase.documents is not None
        writer = self._texts if is_apart else self._rows
        if writer and _is_of(sample, "all" if is_apart else length, self._phase):
            source = DOCUMENTS if is_apart else self._phase.name
            writer.write(_as_conversation(sample, source, config))

    def check(self, seen: _SeenSamples) -> None:
        """Raises RecipeError where there is nothing of what the phase wants."""
        if not self._rows.num_rows:
            raise RecipeError(_why_empty(self._phase, seen))
        if self._texts and not self._texts.num_rows:
            raise RecipeError(
                f"phase {self._phase.name!r} wants documents and there are none; add "
                '`kinds = ["pair", "document"]` to [generate.knowledge], or set `documents = 0`'
            )

    def splits(self) -> tuple[Split, ...]:
        return tuple(writer.split() for writer in (self._rows, self._texts) if writer)


def _held_out(config: MixConfig, phases: Sequence[PhaseConfig]) -> float:
    return config.held_out if any(p.select == "log-likelihood" for p in phases) else 0.0


def _look_through(
    samples: Iterable[Sample],
    config: MixConfig,
    phases: Sequence[PhaseConfig],
    counter: TokenCounter,
) -> _SeenSamples:
    seen = _SeenSamples()
    split = {branch for phase in phases if phase.length != "all" for branch in phase.branches}
    seen.lengths = {branch: array("i") for branch in split}
    is_answer = {branch: bytearray() for branch in split}
    waiting: dict[Branch, list[str]] = {branch: [] for branch in split}
    for sample in samples:
        seen.num_asked[sample.branch] += 1
        if sample.is_kept:
            seen.num_kept[sample.branch] += 1
            if sample.branch in split:
                is_answer[sample.branch].append(sample.kind != "document")
                waiting[sample.branch].append(sample.answer)
                if len(waiting[sample.branch]) == _COUNTED_TOGETHER:
                    seen.lengths[sample.branch].extend(counter.counts(waiting[sample.branch]))
                    waiting[sample.branch].clear()
    for branch in split:
        seen.lengths[branch].extend(counter.counts(waiting[branch]))
        if config.short_answer_tokens is not None:
            seen.longest_short[branch] = config.short_answer_tokens
        elif seen.lengths[branch]:
            # A document is no answer; where there are no answers all documents are short.
            answers = list(compress(seen.lengths[branch], is_answer[branch]))
            seen.longest_short[branch] = statistics.median(answers or [math.inf])
    return seen


def _with_lengths(
    samples: Iterable[Sample], seen: _SeenSamples
) -> Iterator[tuple[Sample, Literal["short", "long", "all"]]]:
    """Kept samples, and which half of its branch each is of, where the branch is split."""
    lengths = {branch: iter(of_branch) for branch, of_branch in seen.lengths.items()}
    for sample in samples:
        if sample.is_kept and sample.branch in lengths:
            is_short = next(lengths[sample.branch]) <= seen.longest_short[sample.branch]
            yield sample, "short" if is_short else "long"
        elif sample.is_kept:
            yield sample, "all"


def _as_wanted(split: Split, phase: PhaseConfig, splits: Sequence[Split]) -> Split:
    """A phase's texts as a share of all its rows, such that they are the part of its taxonomy rows
    that it wants; other sources as they are."""
    if split.rows.name != DOCUMENTS or not phase.documents:
        return split
    others = [other.rows for other in splits if other is not split]
    questions = next(rows.num_samples for rows in others if rows.name == phase.name)
    wanted = questions * phase.documents / (1 - phase.documents)
    fixed = [rows for rows in others if rows.share is None]
    num_fixed = sum(
        r.num_samples if r.fraction is None else r.fraction * r.num_samples for r in fixed
    )
    left = 1 - sum(rows.share or 0 for rows in others)
    return split._replace(rows=replace(split.rows, share=wanted * left / (num_fixed + wanted)))


def _is_of(sample: Sample, half: str, phase: PhaseConfig) -> bool:
    is_of_half = sample.branch in phase.branches and (
        phase.length in ("all", half) or half == "all"
    )
    return is_of_half or sample.branch in phase.whole_branches


def _all_branches(phase: PhaseConfig) -> tuple[Branch, ...]:
    return (*phase.branches, *phase.whole_branches)


def _as_conversation(sample: Sample, source: str, config: MixConfig) -> Conversation:
    """A skill keeps the context it is about; a knowledge answer is to be known without, but for
    kinds that show their passage; a document is learned from its first word to its last."""
    if sample.kind == "document":
        return Conversation(
            id=sample.id,
            source=source,
            leaf=sample.leaf,
            messages=(Message(role="assistant", content=sample.answer),),
            train_on="everything",
        )
    is_fact = sample.branch == "knowledge" and sample.kind not in SHOWN_KINDS
    drops = is_fact and config.knowledge_context == "drop"
    question = user_turn(sample.question, None if drops else sample.context)
    return Conversation(
        id=sample.id,
        source=source,
        leaf=sample.leaf,
        messages=(
            Message(role="user", content=question),
            Message(role="assistant", content=sample.answer),
        ),
    )


def _why_empty(phase: PhaseConfig, seen: _SeenSamples) -> str:
    """Name the branch that gave nothing, and where to look."""
    kept = sum(seen.num_kept[branch] for branch in _all_branches(phase))
    asked = sum(seen.num_asked[branch] for branch in _all_branches(phase))
    branches = " and ".join(_all_branches(phase))
    if not asked:
        why = (
            f"nothing was generated for {branches}; add leaves of that branch to the taxonomy, or "
            "take the phase out of train.phase"
        )
    elif not kept:
        why = (
            f"all {asked} samples of {branches} were rejected; the funnel in the report says which "
            "filter took them and shows examples"
        )
    else:
        limits = ", ".join(f"{seen.longest_short[b]:g}" for b in phase.branches if seen.num_kept[b])
        why = (
            f"none of the {kept} kept answers of {branches} is {phase.length} (short is up to "
            f'{limits} tokens); set mix.short_answer_tokens, or length = "all"'
        )
    return f"phase {phase.name!r} would be empty: {why}"


def _write_data(
    given: Path | Iterable[Conversation],
    name: str,
    rows_path: Path,
    config: MixConfig,
    skipped: list[BadRow],
    held_out: float,
) -> Split:
    num_skipped = len(skipped)
    rows = read_file(given, name) if isinstance(given, Path) else given
    num_good = 0
    with SplitWriter(name, rows_path, held_out) as writer:
        for row in rows:
            if isinstance(row, BadRow):
                skipped.append(row)
            else:
                num_good += 1
                writer.write(replace(row, source=name))
        if not writer.num_rows:
            first = next(islice(skipped, num_skipped, None), None)
            why = f"line {first.line}: {first.reason}" if first else "the file is empty"
            place = given if isinstance(given, Path) else name
            raise RecipeError(f"{place}: no row of {name!r} can be used; {why}")
        _check_share(skipped[num_skipped:], num_good, name, config.max_bad_rows)
    return writer.split()


def _check_share(bad: Sequence[BadRow], num_good: int, name: str, max_bad_rows: float) -> None:
    """Raises RecipeError where more than the recipe's share of a file's rows are of no use."""
    if len(bad) <= max_bad_rows * (len(bad) + num_good):
        return
    reasons = {row.reason: row.line for row in reversed(bad)}
    shown = "; ".join(f"line {line}: {reason}" for reason, line in list(reasons.items())[-3:][::-1])
    raise RecipeError(
        f"{bad[0].path}: {len(bad)} of {len(bad) + num_good} rows of {name!r} cannot be used "
        f"({shown}); mend them, or raise `mix.max_bad_rows` above {max_bad_rows:g}"
    )


def _rows_path(folder: Path, kind: str, name: str) -> Path:
    plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
    return folder / f"{kind}-{plain}.jsonl.zst"


def _report_skipped(skipped: Sequence[BadRow], folder: Path) -> None:
    lines = [json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in skipped]
    write_text_whole(folder / "skipped.jsonl", "".join(lines))
    for name, num_rows in Counter(row.source for row in skipped).items():
        first = next(row for row in skipped if row.source == name)
        log.warning(
            "%s: %d rows of %r skipped, the first at line %d (%s); all are in %s",
            first.path, num_rows, name, first.line, first.reason, folder / "skipped.jsonl",
        )  # fmt: skip


def _replayed(
    phase: PhaseConfig, own: Mapping[str, tuple[Split, ...]], given: Mapping[str, Split]
) -> Iterator[Split]:
    """Earlier phases' own rows again, or data; a share is split among a phase's sources by size."""
    for replay in phase.replay:
        splits = own[replay.phase] if replay.phase else (given[replay.data],)
        total = sum(split.rows.num_samples for split in splits)
        for split in splits:
            num_rows = split.rows.num_samples
            share = None if replay.share is None else replay.share * num_rows / total
            # Sources of a phase need names of their own: it may train on data that it also replays.
            name = split.rows.name
            if name != replay.phase:
                name = f"{replay.phase or 'replay'}/{name}"
            if replay.fraction or share:
                rows = replace(split.rows, name=name, fraction=replay.fraction, share=share)
                yield Split(rows, split.held_out and replace(split.held_out, name=name))


def _as_phase(phase: PhaseConfig, splits: Sequence[Split]) -> Phase:
    by_likelihood = phase.select == "log-likelihood"
    return Phase(
        name=phase.name,
        sources=tuple(split.rows for split in splits),
        held_out=tuple(s.held_out for s in splits if s.held_out) if by_likelihood else (),
    )
