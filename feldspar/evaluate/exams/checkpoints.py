"""Exams scored: of checkpoints on the selection items while training, and on the report items at
the end; of a served model on the report items."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from feldspar.config import EvaluateConfig, StudentConfig
from feldspar.evaluate.examinee import CheckpointExaminee, Examinee
from feldspar.evaluate.exams.answers import VERSION, kept_answers
from feldspar.evaluate.scores import LEAF_EXAMS, scores_of
from feldspar.keys import content_key
from feldspar.progress import SILENT, Progress
from feldspar.records import Answer, Checkpoint, ExamItem, Score
from feldspar.runs import write_rows
from feldspar.steps import Step, Workspace


class ScoreOnExams:
    """The items for selection, alone: the `ScoreItems` of training, the `ScoreCheckpoint` of
    preference tuning. Those of what is learned, or, with `retention`, those of what is to be kept.

    Answers are kept under `cache_path` by checkpoint, items and settings, so that no checkpoint is
    asked twice; a base's also under `base_cache`, for other runs.
    """

    metric = "accuracy"

    def __init__(
        self,
        items: Iterable[ExamItem],
        *,
        student: StudentConfig,
        config: EvaluateConfig,
        seed: int,
        cache_path: Path,
        progress: Progress = SILENT,
        retention: bool = False,
        base_cache: Path | None = None,
    ) -> None:
        self._items = tuple(
            item for item in items if item.use == "select" and item.is_retention == retention
        )
        self._student, self._config, self._seed = student, config, seed
        self._cache_path, self._progress, self._base_cache = cache_path, progress, base_cache
        self.key = content_key(VERSION, self._items, student, config.of_items(), seed)

    @property
    def has_items(self) -> bool:
        return bool(self._items)

    def values(self, checkpoint: Checkpoint) -> dict[str, float]:
        """1 for each item that is answered right, 0 for each other that can be matched."""
        answers = self._answers(checkpoint)
        return {a.item: float(a.is_right) for a in answers if a.is_right is not None}

    def __call__(self, checkpoint: Checkpoint) -> list[Score]:
        scored = scores_of(
            f"{checkpoint.phase}/{checkpoint.step}",
            self._items,
            self._answers(checkpoint),
            num_resamples=self._config.num_resamples,
            seed=self._seed,
            settings=_settings(f"{self._student.template} template", self._config),
            answers_path=str(self._path(checkpoint)),
        )
        # Each item counts once: not again in the figures of all leaves, a branch, or an origin.
        return [score for score in scored if score.leaf or not score.exam.startswith(LEAF_EXAMS)]

    def _answers(self, checkpoint: Checkpoint) -> list[Answer]:
        return kept_answers(
            self._path(checkpoint),
            CheckpointExaminee(checkpoint.phase, checkpoint, self._student),
            self._items,
            config=self._config,
            seed=self._seed,
            progress=self._progress,
            base_cache=self._base_cache if checkpoint.step == 0 else None,
        )

    def _path(self, checkpoint: Checkpoint) -> Path:
        return self._cache_path / f"{checkpoint.digest[:16]}-{self.key[:16]}.jsonl.zst"


def evaluate(
    workspace: Workspace,
    named_checkpoints: Sequence[tuple[str, Checkpoint]],
    items: Iterable[ExamItem],
    config: EvaluateConfig,
    *,
    student: StudentConfig,
    seed: int,
    base_cache: Path | None = None,
) -> Iterator[Score]:
    """Score checkpoints on the report items; the answers lie in `FOLDER/answers/NAME.jsonl.zst`.

    Answers that an earlier try left there are used again, those of another step of the run, and
    under `base_cache` those of a base that another run has asked.
    """
    reported = [item for item in items if item.use == "report"]
    key = content_key(VERSION, reported, student, config.of_items(), seed)
    known: dict[str, list[Answer]] = {}
    for name, checkpoint in named_checkpoints:
        path = workspace.folder / "answers" / f"{name}.jsonl.zst"
        path.parent.mkdir(parents=True, exist_ok=True)
        if checkpoint.digest in known:
            write_rows(path, known[checkpoint.digest])
        shared = _shared_path(workspace, checkpoint, key)
        if shared is not None and shared.exists() and not path.exists():
            shutil.copyfile(shared, path)
        examinee = CheckpointExaminee(name, checkpoint, student)
        answers = kept_answers(
            path,
            examinee,
            reported,
            config=config,
            seed=seed,
            progress=workspace.progress,
            base_cache=base_cache if checkpoint.step == 0 else None,
        )
        known[checkpoint.digest] = answers
        if shared is not None and not shared.exists():
            shared.parent.mkdir(parents=True, exist_ok=True)
            write_rows(shared, answers, is_shared=True)
        yield from _scores(examinee, reported, answers, config, seed, path)


SCORES_STEP = Step("scores", evaluate, version=2)


def _shared_path(workspace: Workspace, checkpoint: Checkpoint, key: str) -> Path | None:
    if workspace.answers is None:
        return None
    return workspace.answers / f"{checkpoint.digest[:16]}-{key[:16]}.jsonl.zst"


def evaluate_served(
    workspace: Workspace,
    items: Iterable[ExamItem],
    config: EvaluateConfig,
    *,
    served: Examinee,
    seed: int,
) -> Iterator[Score]:
    """Score the model of `evaluate.server` on the report items, as `evaluate` does a checkpoint.

    A step of its own: another server leaves the scores of the checkpoints as they are.
    """
    reported = [item for item in items if item.use == "report"]
    path = workspace.folder / "answers" / f"{served.folder_name}.jsonl.zst"
    answers = kept_answers(
        path, served, reported, config=config, seed=seed, progress=workspace.progress
    )
    yield from _scores(served, reported, answers, config, seed, path)


SERVED_EXAMS_STEP = Step("served-exams", evaluate_served, version=2)


def _scores(
    examinee: Examinee,
    items: Sequence[ExamItem],
    answers: Sequence[Answer],
    config: EvaluateConfig,
    seed: int,
    path: Path,
) -> Iterator[Score]:
    settings = _settings(examinee.template, config)
    if answers and all(answer.log_likelihood is None for answer in answers):
        settings += ", without log-probabilities"
    return scores_of(
        examinee.name,
        items,
        answers,
        num_resamples=config.num_resamples,
        seed=seed,
        settings=settings,
        answers_path=str(path),
    )


def _settings(template: str, config: EvaluateConfig) -> str:
    return f"greedy, up to {config.max_new_tokens} new tokens, {template}"
