"""A benchmark to choose checkpoints by: its validation part, never what is reported."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

from feldspar.config import BenchmarkConfig, StudentConfig
from feldspar.evaluate.benchmarks.run import score_benchmarks
from feldspar.evaluate.benchmarks.tasks import data_files, find_tasks, harness_version
from feldspar.progress import SILENT, Progress
from feldspar.records import Checkpoint, Score


class ScoreOnBenchmark:
    """A `ScoreCheckpoint`: one figure, the benchmark's on its validation part, as accuracy.

    Raises RecipeError for a task that lm_eval does not have.
    """

    def __init__(
        self,
        config: BenchmarkConfig,
        *,
        student: StudentConfig,
        here: Path,
        cache_path: Path,
        progress: Progress = SILENT,
    ) -> None:
        self._config = config.model_copy(update={"split": "validation"})
        find_tasks(self._config)
        self._student, self._here, self._progress = student, here, progress
        self._cache_path = cache_path
        parts = [
            self._config.model_dump(mode="json", exclude={"data"}),
            student.model_dump(mode="json", exclude={"base"}),
            harness_version(),
            [hashlib.sha256(path.read_bytes()).hexdigest() for path in data_files(config)],
        ]
        self.key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def __call__(self, checkpoint: Checkpoint) -> list[Score]:
        scores = score_benchmarks(
            [(f"{checkpoint.phase}-{checkpoint.step}", checkpoint)],
            [self._config],
            student=self._student,
            harness=harness_version(),
            here=self._here,
            cache_path=self._cache_path,
            progress=self._progress,
        )
        return [
            dataclasses.replace(
                score, metric="accuracy", checkpoint=f"{checkpoint.phase}/{checkpoint.step}"
            )
            for score in scores
            if score.exam == self._config.task
        ]
