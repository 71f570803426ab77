"""What each phase sees, by reference: its own samples and data, earlier phases, general data."""

import json
import logging
import math
import statistics
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from pathlib import Path

from feldspar.config import MixConfig, PhaseConfig, TrainConfig
from feldspar.errors import RecipeError
from feldspar.mix.rows import BadRow, RowWriter, read_messages
from feldspar.records import Branch, Conversation, Message, Phase, Sample, Source, user_turn

log = logging.getLogger(__name__)

BASE_REPLAY = "base replay"
"""Name of the source that every phase draws its general data from."""


@dataclass
class _Seen:
    """What went by: samples asked for and kept, and the split of each branch."""

    num_asked: Counter[Branch] = field(default_factory=Counter)
    num_kept: Counter[Branch] = field(default_factory=Counter)
    longest_short: dict[Branch, float] = field(default_factory=dict)
    """In tokens: answers up to this long are short."""


def mix_phases(
    samples: Iterable[Sample],
    config: MixConfig,
    *,
    phases: Sequence[PhaseConfig],
    train: TrainConfig,
    data: Mapping[str, Path],
    base_replay: Path | None,
    count_tokens: Callable[[str], int],
    here: Path,
) -> Iterator[Phase]:
    """Write each phase's rows once under `here`; what is replayed is a reference to them.

    `samples` is gone through twice. `data` holds the files of `[[data]]` by name, `base_replay`
    that of `mix.base_replay`. Rows that cannot be used are counted, logged, and listed with their
    reasons in `here/skipped.jsonl`. Raises RecipeError for a phase without rows.
    """
    assert (base_replay is None) == (config.base_replay is None), base_replay
    _check(phases, config)
    here.mkdir(parents=True, exist_ok=True)
    own = _write_samples(samples, config, phases, count_tokens, here)
    skipped: list[BadRow] = []
    used = sorted({name for phase in phases for name in phase.data})
    given = {
        name: _write_data(data[name], name, _rows_path(here, f"data-{number}", name), skipped)
        for number, name in enumerate(used, start=1)
    }
    general = base_replay and _write_data(
        base_replay, BASE_REPLAY, here / "base-replay.jsonl.zst", skipped
    )
    _report_skipped(skipped, here)
    own = {p.name: (*own[p.name], *(given[name] for name in p.data)) for p in phases}
    for phase in phases:
        sources = [*own[phase.name], *_replayed(phase, own)]
        if general and config.base_replay and config.base_replay.share:
            sources.append(replace(general, share=config.base_replay.share))
        yield _as_phase(phase, sources, train)


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


def _check(phases: Sequence[PhaseConfig], config: MixConfig) -> None:
    taken = {BASE_REPLAY, *(phase.name for phase in phases)}
    base_share = config.base_replay.share if config.base_replay else 0.0
    for phase in phases:
        total = base_share + sum(replay.share or 0.0 for replay in phase.replay)
        if total >= 1:
            raise RecipeError(
                f"phase {phase.name!r}: replayed shares add up to {total:g}, which leaves no room "
                "for its own rows; keep their sum below 1"
            )
        if not phase.branches and not phase.data:
            raise RecipeError(f"phase {phase.name!r} names neither branches nor data; add one")
        if clash := taken & set(phase.data):
            raise RecipeError(
                f"[[data]] {clash.pop()!r} is called as a phase is; give it another name"
            )


def _write_samples(
    samples: Iterable[Sample],
    config: MixConfig,
    phases: Sequence[PhaseConfig],
    count_tokens: Callable[[str], int],
    here: Path,
) -> dict[str, tuple[Source, ...]]:
    """One file of taxonomy samples per phase that names branches."""
    seen = _look_through(samples, config, phases, count_tokens)
    mixing = [(number, phase) for number, phase in enumerate(phases, start=1) if phase.branches]
    with ExitStack() as stack:
        writers = {
            phase.name: stack.enter_context(
                RowWriter(_rows_path(here, f"phase-{number}", phase.name))
            )
            for number, phase in mixing
        }
        for sample in samples:
            for _, phase in mixing:
                if sample.is_kept and _is_of(sample, phase, seen, count_tokens):
                    writers[phase.name].write(_as_conversation(sample, phase.name, config))
        for _, phase in mixing:
            if not writers[phase.name].num_rows:
                raise RecipeError(_why_empty(phase, seen))
    return {
        phase.name: (_as_source(phase.name, writers[phase.name]),) if phase.branches else ()
        for phase in phases
    }


def _look_through(
    samples: Iterable[Sample],
    config: MixConfig,
    phases: Sequence[PhaseConfig],
    count_tokens: Callable[[str], int],
) -> _Seen:
    seen = _Seen()
    split = {branch for phase in phases if phase.length != "all" for branch in phase.branches}
    lengths: dict[Branch, array[int]] = {branch: array("q") for branch in split}
    for sample in samples:
        seen.num_asked[sample.branch] += 1
        if sample.is_kept:
            seen.num_kept[sample.branch] += 1
            # A document is no answer; where there are no answers all documents are short.
            is_answer = sample.kind != "document"
            if sample.branch in split and is_answer and config.short_answer_tokens is None:
                lengths[sample.branch].append(count_tokens(sample.answer))
    for branch in split:
        if config.short_answer_tokens is not None:
            seen.longest_short[branch] = config.short_answer_tokens
        elif seen.num_kept[branch]:
            seen.longest_short[branch] = statistics.median(lengths[branch] or [math.inf])
    return seen


def _is_of(
    sample: Sample, phase: PhaseConfig, seen: _Seen, count_tokens: Callable[[str], int]
) -> bool:
    if sample.branch not in phase.branches:
        return False
    if phase.length == "all":
        return True
    is_short = count_tokens(sample.answer) <= seen.longest_short[sample.branch]
    return is_short == (phase.length == "short")


def _as_conversation(sample: Sample, source: str, config: MixConfig) -> Conversation:
    """A skill keeps the context it is about; a knowledge answer is to be known without, but for
    retrieval samples; a document is learned from its first word to its last."""
    if sample.kind == "document":
        return Conversation(
            id=sample.id,
            source=source,
            leaf=sample.leaf,
            messages=(Message(role="assistant", content=sample.answer),),
            train_on="everything",
        )
    is_fact = sample.branch == "knowledge" and sample.kind != "retrieval"
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


def _why_empty(phase: PhaseConfig, seen: _Seen) -> str:
    """Name the branch that gave nothing, and where to look."""
    kept = sum(seen.num_kept[branch] for branch in phase.branches)
    asked = sum(seen.num_asked[branch] for branch in phase.branches)
    branches = " and ".join(phase.branches)
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


def _write_data(path: Path, name: str, rows_path: Path, skipped: list[BadRow]) -> Source:
    num_skipped = len(skipped)
    with RowWriter(rows_path) as writer:
        for row in read_messages(path, name):
            if isinstance(row, BadRow):
                skipped.append(row)
            else:
                writer.write(row)
        if not writer.num_rows:
            first = next(islice(skipped, num_skipped, None), None)
            why = f"line {first.line}: {first.reason}" if first else "the file is empty"
            raise RecipeError(f"{path}: no row of {name!r} can be used; {why}")
    return _as_source(name, writer)


def _rows_path(here: Path, kind: str, name: str) -> Path:
    plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
    return here / f"{kind}-{plain}.jsonl.zst"


def _as_source(name: str, writer: RowWriter) -> Source:
    return Source(
        name=name, path=str(writer.path), digest=writer.digest, num_samples=writer.num_rows
    )


def _report_skipped(skipped: Sequence[BadRow], here: Path) -> None:
    lines = [json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in skipped]
    (here / "skipped.jsonl").write_text("".join(lines), encoding="utf-8")
    for name, num_rows in Counter(row.source for row in skipped).items():
        first = next(row for row in skipped if row.source == name)
        log.warning(
            "%s: %d rows of %r skipped, the first at line %d (%s); all are in %s",
            first.path, num_rows, name, first.line, first.reason, here / "skipped.jsonl",
        )  # fmt: skip


def _replayed(phase: PhaseConfig, own: Mapping[str, tuple[Source, ...]]) -> Iterator[Source]:
    """Earlier phases' own rows again; a share is split among a phase's sources by their size."""
    for replay in phase.replay:
        sources = own[replay.phase]
        total = sum(source.num_samples for source in sources)
        for source in sources:
            share = None if replay.share is None else replay.share * source.num_samples / total
            # Sources of a phase need names of their own: it may train on data that it also replays.
            name = source.name if source.name == replay.phase else f"{replay.phase}/{source.name}"
            if replay.fraction or share:
                yield replace(source, name=name, fraction=replay.fraction, share=share)


def _as_phase(phase: PhaseConfig, sources: Sequence[Source], train: TrainConfig) -> Phase:
    return Phase(
        name=phase.name,
        sources=tuple(sources),
        num_epochs=phase.num_epochs,
        batch_samples=phase.batch_samples or train.batch_samples,
        learning_rate=phase.learning_rate or train.learning_rate,
        warmup_steps=train.warmup_steps,
        select=phase.select,
    )
