"""What each phase trains on, as rows for other trainers: its own and what it replays, marked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from feldspar.errors import RunError
from feldspar.files import whole_folder
from feldspar.mix.phases import is_replayed
from feldspar.records import Conversation, Phase, Source
from feldspar.runs import read_rows
from feldspar.stored import damaged
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.table_files import Column, Format, Row, write_table

CARD_FILE = "README.md"
COLUMNS: dict[str, Column] = {
    "messages": "messages",
    "unmask": "flag",
    "id": "text",
    "leaf": "text",
    "source": "text",
    "is_replay": "flag",
    "is_cut": "flag",
}


class ExportedPhase(NamedTuple):
    """A phase's file, and its rows by source."""

    name: str
    file: str
    num_rows: dict[str, int]
    replayed: frozenset[str]
    """Sources that are drawn again."""


def export_phases(
    phases: Sequence[Phase], out: Path, *, name: str, seed: int, form: Format = "jsonl"
) -> list[ExportedPhase]:
    """Write the rows of each phase's first epoch to the new folder `out`, a file a phase:

        {"messages": [{"role": "user", "content": "2 + 2?"},
                      {"role": "assistant", "content": "4"}],
         "unmask": false, "id": "...", "leaf": "foundational_skills/sums",
         "source": "knowledge-short", "is_replay": true, "is_cut": false}

    Its own rows come first, then those that are replayed, as the run with this `seed` draws them,
    each source in the order of its file. `[[data]]` reads the files again as the same rows. Raises
    RunError where `out` exists, and for Parquet without pyarrow.
    """
    if out.exists():
        raise RunError(f"{out} exists; name another --out, or remove it")
    with whole_folder(out) as beside:
        done = [
            _export(phase, beside, f"phase-{number}-{_plain(phase.name)}.{form}", seed, form)
            for number, phase in enumerate(phases, start=1)
        ]
        (beside / CARD_FILE).write_text(_card(name, done), encoding="utf-8")
    return done


def _export(phase: Phase, folder: Path, file: str, seed: int, form: Format) -> ExportedPhase:
    schedule = Schedule(
        sources=tuple(
            SourceRows(name=s.name, num_rows=s.num_samples, fraction=s.fraction, share=s.share)
            for s in phase.sources
        ),
        batch_samples=1,
        num_epochs=1,
        phase=phase.name,
        seed=seed,
    )
    counts: Counter[str] = Counter()
    replayed = {source.name for source in phase.sources if is_replayed(source)}
    with write_table(folder / file, COLUMNS, form) as write:
        for place, source in enumerate(phase.sources):
            drawn = Counter(schedule.rows_of(place, epoch=0).tolist())
            for row in _rows(source, drawn):
                write(_as_row(row, source.name, source.name in replayed))
                counts[source.name] += 1
    return ExportedPhase(phase.name, file, dict(counts), frozenset(replayed))


def _rows(source: Source, drawn: Counter[int]) -> Iterator[Conversation]:
    num_rows = 0
    for row in read_rows(Path(source.path), Conversation):
        for _ in range(drawn[num_rows]):
            yield row
        num_rows += 1
    if num_rows != source.num_samples:
        raise damaged(Path(source.path), f"it has {num_rows} rows, not {source.num_samples}")


def _as_row(row: Conversation, source: str, is_replay: bool) -> Row:
    return {
        "messages": [{"role": m.role, "content": m.content} for m in row.messages],
        # InstructLab's mark of what is trained on beside the answers.
        "unmask": row.train_on in ("turns", "everything"),
        "id": row.id,
        "leaf": row.leaf,
        "source": source,
        "is_replay": is_replay,
        "is_cut": row.train_on == "unended",
    }


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)


def _card(name: str, phases: Sequence[ExportedPhase]) -> str:
    configs = [
        f"- {{config_name: {json.dumps(phase.name)}, data_files: {json.dumps(phase.file)}}}"
        for phase in phases
    ]
    rows = [
        f"| {phase.name} | {source} | {'yes' if source in phase.replayed else ''} | {number:,} |"
        for phase in phases
        for source, number in phase.num_rows.items()
    ]
    return "\n".join(
        [
            "---",
            f"pretty_name: {json.dumps(name)}",
            "configs:",
            *configs,
            "tags: [LAB, feldspar]",
            "---",
            "",
            f"# {name}: what each phase trains on",
            "",
            "The rows of each phase's first epoch; later epochs draw other parts of what is "
            "replayed. `messages` and `unmask` are InstructLab's layout, `is_replay` marks rows "
            "that are drawn again, and `is_cut` answers that were cut off, whose end is not "
            "trained. Shuffle the rows before training.",
            "",
            "| phase | source | replayed | rows |",
            "|---|---|---|---:|",
            *rows,
            "",
        ]
    )
