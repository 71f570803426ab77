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
) -> list[PhaseRows]:
    """Rows per epoch, from the kept samples to expect of each branch and the rows of `[[data]]`.

    A phase's `num_samples` goes before all counts, what it replays included; halves by length
    count as halves.
    """
    own = {f"data {name}": num_rows for name, num_rows in num_data.items()}
    rows = []
    for phase in phases:
        of_branches = sum(num_samples.get(branch, 0) for branch in phase.branches)
        samples = of_branches if phase.length == "all" else (of_branches + 1) // 2
        own[phase.name] = phase.num_samples or samples + sum(num_data[n] for n in phase.data)
        stated = PhaseRows(phase.name, own[phase.name], 0, 0)
        rows.append(stated if phase.num_samples else _phase_rows(phase, config, own))
    return rows


def estimate(rows: Sequence[PhaseRows]) -> Estimate:
    """Disk for the phases' own rows, which are written once however often they are replayed."""
    num_written = sum(phase.own for phase in rows) + max((p.general for p in rows), default=0)
    return Estimate(
        step="phases",
        disk_bytes=num_written * BYTES_PER_ROW,
        note=", ".join(f"{phase.name}: {phase.total:,} rows an epoch" for phase in rows),
    )


def _phase_rows(phase: PhaseConfig, config: MixConfig, own: Mapping[str, int]) -> PhaseRows:
    by_fraction = sum(
        own[r.phase or f"data {r.data}"] * r.fraction
        for r in phase.replay
        if r.fraction is not None
    )
    replay_share = sum(replay.share or 0.0 for replay in phase.replay)
    base_share = config.base_replay.share if config.base_replay else 0.0
    # Shares are of the whole: own and fraction rows are what the shares leave.
    whole = (own[phase.name] + by_fraction) / (1 - replay_share - base_share)
    return PhaseRows(
        name=phase.name,
        own=own[phase.name],
        replayed=round(by_fraction + replay_share * whole),
        general=round(base_share * whole),
    )
