"""A benchmark to choose checkpoints by: its validation part, never what is reported."""

from __future__ import annotations

import hashlib
from pathlib import Path

from feldspar.config import BenchmarkConfig, StudentConfig
from feldspar.evaluate.benchmarks.run import benchmark_items
from feldspar.evaluate.benchmarks.tasks import check_validation, data_files, harness_version
from feldspar.keys import content_key
from feldspar.progress import SILENT, Progress
from feldspar.records import Checkpoint


class ScoreOnBenchmark:
    """A `ScoreItems`: the items of a benchmark's validation part, in the metric it is known by.

    Raises RecipeError for a task that lm_eval does not have, and for one without such a part.
    """

    metric = "accuracy"

    def __init__(
        self,
        config: BenchmarkConfig,
        *,
        student: StudentConfig,
        cache_path: Path,
        progress: Progress = SILENT,
    ) -> None:
        self._config = config.model_copy(update={"split": "validation"})
        check_validation(self._config)
        self._student, self._progress, self._cache_path = student, progress, cache_path
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in data_files(config)]
        self.key = content_key(self._config, student, harness_version(), digests)

    def values(self, checkpoint: Checkpoint) -> dict[str, float]:
        """1 for each item that is right, 0 for each other; results are kept as every benchmark's
        are, so that no checkpoint is asked twice."""
        items = benchmark_items(
            checkpoint,
            self._config,
            student=self._student,
            cache_path=self._cache_path,
            progress=self._progress,
        )
        return {item.id: item.value for item in items if item.value is not None}
