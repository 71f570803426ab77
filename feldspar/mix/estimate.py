"""What a mixture will come to, before there is a sample."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from feldspar.config import MixConfig, PhaseConfig
from feldspar.records import Branch, Estimate

BYTES_PER_ROW = 200
"""On disk, packed. Measured: 8,185 T0 rows of 821 characters on average take 176 bytes each."""


class PhaseRows(NamedTuple):
    """Rows of one epoch of a phase."""

    name: str
    own: int
    replayed: int
    general: int

    @property
    def total(self) -> int:
        return self.own + self.replayed + self.general


def expected_rows(
    phases: Sequence[PhaseConfig],
    config: MixConfig,
    num_samples: Mapping[Branch, int],
    num_data: Mapping[str, int],
    num_texts: Mapping[Branch, int] | None = None,
) -> list[PhaseRows]:
    """Rows per epoch, from the kept samples to expect of each branch and the rows of `[[data]]`.

    `num_texts`: how many of the samples are texts, which `documents` of a phase speaks of. A
    phase's `num_samples` goes before all counts, what it replays included; halves by length count
    as halves.
    """
    written = {f"data {name}": num_rows for name, num_rows in num_data.items()}
    rows = []
    for phase in phases:
        of_data = sum(num_data[name] for name in phase.data)
        there, own = _taxonomy_rows(phase, num_samples, num_texts or {})
        written[phase.name] = phase.num_samples or there + of_data
        stated = PhaseRows(phase.name, written[phase.name], 0, 0)
        found = _phase_rows(phase, config, own + of_data, written)
        rows.append(stated if phase.num_samples else found)
    return rows


def _taxonomy_rows(
    phase: PhaseConfig, num_samples: Mapping[Branch, int], num_texts: Mapping[Branch, int]
) -> tuple[int, int]:
    """Rows that are written for a phase, and rows of them that it draws in an epoch."""

    def count(of: Mapping[Branch, int]) -> int:
        split = sum(of.get(branch, 0) for branch in phase.branches)
        whole = sum(of.get(branch, 0) for branch in phase.whole_branches)
        return (split if phase.length == "all" else (split + 1) // 2) + whole

    if phase.documents is None:
        return count(num_samples), count(num_samples)
    questions = count({branch: n - num_texts.get(branch, 0) for branch, n in num_samples.items()})
    # Texts are not halved by length where a phase says how many it wants.
    branches = {*phase.branches, *phase.whole_branches} if phase.documents else set()
    texts = sum(num_texts.get(branch, 0) for branch in branches)
    return questions + texts, round(questions / (1 - phase.documents))


def estimate(rows: Sequence[PhaseRows]) -> Estimate:
    """Disk for the phases' own rows, which are written once however often they are replayed."""
    num_written = sum(phase.own for phase in rows) + max((p.general for p in rows), default=0)
    return Estimate(
        step="phases",
        disk_bytes=num_written * BYTES_PER_ROW,
        note=", ".join(f"{phase.name}: {phase.total:,} rows an epoch" for phase in rows),
    )


def _phase_rows(
    phase: PhaseConfig, config: MixConfig, own: int, written: Mapping[str, int]
) -> PhaseRows:
    by_fraction = sum(
        written[r.phase or f"data {r.data}"] * r.fraction
        for r in phase.replay
        if r.fraction is not None
    )
    replay_share = sum(replay.share or 0.0 for replay in phase.replay)
    base_share = config.base_replay.share if config.base_replay else 0.0
    # Shares are of the whole: own and fraction rows are what the shares leave.
    whole = (own + by_fraction) / (1 - replay_share - base_share)
    return PhaseRows(
        name=phase.name,
        own=own,
        replayed=round(by_fraction + replay_share * whole),
        general=round(base_share * whole),
    )
