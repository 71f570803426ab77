"""The phases' objective with `[train.kl]`: what the base says on base replay, found once."""

from __future__ import annotations

from pathlib import Path

from feldspar.config import KlConfig, StudentConfig
from feldspar.errors import TrainingError
from feldspar.keys import content_key
from feldspar.progress import Progress
from feldspar.records import Checkpoint, Phase
from feldspar.student.model import Student, load_student, load_tokenizer
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.base_kl import HeldToBase
from feldspar.student.training.base_top_k import write_top_k
from feldspar.student.training.objective import Objective

BASE_REPLAY = "base replay"
"""Name of the source that is held; the one of mix/phases.py."""


def held_to_base(
    base: Checkpoint,
    loaded: Student,
    phase: Phase,
    rows: TokenRows,
    config: KlConfig,
    student: StudentConfig,
    folder: Path,
    progress: Progress,
    *,
    packing: bool,
) -> Objective | None:
    """Cross-entropy, and the divergence from the base on the rows of base replay.

    What the base says lies in `folder`, by what decides it, and is found again. None for a phase
    without base replay. Raises TrainingError where none of its rows is left.
    """
    names = [source.name for source in phase.sources]
    if BASE_REPLAY not in names:
        return None
    source = names.index(BASE_REPLAY)
    if not rows.num_rows[source]:
        raise TrainingError(
            f"phase {phase.name}: no row of base replay fits student.max_length, and train.kl is "
            "about these; raise that, or take train.kl out"
        )
    held = TokenRows([rows.sources[source]])
    key = content_key(base, held, config.top_k, loaded.template)
    cache = folder / "base-top-k" / key[:16]
    if not cache.is_dir():
        # Full weights: low-rank ones would be added for training alone.
        whole = load_student(base.path, student)
        write_top_k(whole, held, config.top_k, cache, progress, packing=packing)
    return HeldToBase(rows, source, cache, beta=config.beta, new_ids=_new_ids(base, loaded))


def _new_ids(base: Checkpoint, loaded: Student) -> frozenset[int]:
    """Tokens of the student that the base's tokenizer lacks."""
    known = load_tokenizer(base.path).get_vocab()
    vocabulary = loaded.tokenizer.get_vocab()
    return frozenset(number for token, number in vocabulary.items() if token not in known)
