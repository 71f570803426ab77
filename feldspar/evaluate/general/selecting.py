"""What was learned and what was kept, weighed together, to choose checkpoints by."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from feldspar.config import GeneralConfig, StudentConfig
from feldspar.evaluate.examinee import CheckpointExaminee
from feldspar.evaluate.general.answers import general_answers
from feldspar.evaluate.general.marks import Marks, marks_of
from feldspar.evaluate.general.questions import asked_half, content_digest
from feldspar.evaluate.general.scores import known_items
from feldspar.keys import content_key
from feldspar.progress import SILENT, Progress
from feldspar.records import Checkpoint, ScoreItems

VERSION = 2


class GeneralKept:
    """A `ScoreItems`: of the general-knowledge exam's half that chooses, the items that the base
    has right in both wordings. `others` are further marks of what is to be kept."""

    metric = "accuracy"

    def __init__(
        self,
        base: Checkpoint,
        config: GeneralConfig,
        *,
        student: StudentConfig,
        cache_path: Path,
        progress: Progress = SILENT,
        others: ScoreItems | None = None,
    ) -> None:
        self._base, self._config, self._others = base, config, others
        self._student, self._cache_path, self._progress = student, cache_path, progress
        self._items = asked_half("select", config.items_per_kind)
        self.key = content_key(VERSION, base, config, student, content_digest(), others)

    def values(self, checkpoint: Checkpoint) -> dict[str, float]:
        """1 for each item that is right in both wordings, 0 for each other."""
        of_base, own = self._marks(self._base), self._marks(checkpoint)
        known = known_items(self._items, of_base)
        others = self._others.values(checkpoint) if self._others else {}
        return others | {f"general {item.id}": float(own[item.id].both) for item in known}

    def _marks(self, checkpoint: Checkpoint) -> Mapping[str, Marks]:
        answers = general_answers(
            CheckpointExaminee(checkpoint.phase, checkpoint, self._student),
            self._items,
            max_new_tokens=self._config.max_new_tokens,
            cache_path=self._cache_path,
            progress=self._progress,
        )
        return marks_of(self._items, answers)


class LearnedAndKept:
    """A `ScoreItems` of both. The mean over all values is `(1 - weight) * learned + weight * kept`,
    however many items either has."""

    metric = "learned and kept"

    def __init__(self, learned: ScoreItems, kept: ScoreItems, weight: float) -> None:
        self._learned, self._kept, self._weight = learned, kept, weight
        self.key = content_key(VERSION, learned, kept, weight)

    def values(self, checkpoint: Checkpoint) -> dict[str, float]:
        """By item: 0 or 1, scaled so that their mean weighs both parts as it is said."""
        learned, kept = self._learned.values(checkpoint), self._kept.values(checkpoint)
        if not learned or not kept:
            return learned or kept
        total, weight = len(learned) + len(kept), self._weight
        of_learned, of_kept = (1 - weight) * total / len(learned), weight * total / len(kept)
        scaled = {item: of_learned * value for item, value in learned.items()}
        return scaled | {item: of_kept * value for item, value in kept.items()}
