"""The general-knowledge exam over models: the base's answers beside each other's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from feldspar.config import GeneralConfig, StudentConfig
from feldspar.evaluate.examinee import CheckpointExaminee, Examinee, all_examinees, file_name
from feldspar.evaluate.general.answers import general_answers
from feldspar.evaluate.general.distance import (
    BaseContinuation,
    Measure,
    base_continuations,
    divergence_score,
    perplexity_score,
)
from feldspar.evaluate.general.marks import GeneralAnswer, Marks, marks_of
from feldspar.evaluate.general.questions import (
    EXAM,
    GeneralItem,
    asked_half,
    general_text,
)
from feldspar.evaluate.general.scores import (
    KEPT,
    Sitting,
    general_scores,
    known_items,
    written_items,
)
from feldspar.progress import Progress
from feldspar.records import Checkpoint, Score
from feldspar.runs import write_rows
from feldspar.steps import Step, Workspace


def score_general(
    workspace: Workspace,
    named_checkpoints: Sequence[tuple[str, Checkpoint]],
    config: GeneralConfig,
    *,
    student: StudentConfig,
    server: Examinee | None = None,
    version: str,
    num_resamples: int,
    seed: int,
    cache_path: Path,
) -> Iterator[Score]:
    """Scores on the half that is reported, the base first; items lie in `FOLDER/items/NAME/`.

    `version` is the exam's content digest. Answers are found again under `cache_path`, whichever
    run or arm asked for them.
    """
    asking = _Asking(config, cache_path, workspace.progress)
    base = asking.base(CheckpointExaminee(*named_checkpoints[0], student))
    passages = general_text(None if config.text is None else Path(config.text))
    for examinee in all_examinees(named_checkpoints, student, server):
        folder = workspace.folder / "items" / file_name(examinee.name)
        folder.mkdir(parents=True, exist_ok=True)
        paths = {EXAM: folder / "all.jsonl.zst", KEPT: folder / "kept.jsonl.zst"}
        answers = asking.answers(examinee, base.items)
        is_base = examinee.name == base.name
        marks = base.marks if is_base else marks_of(base.items, answers)
        write_rows(paths[EXAM], written_items(base.items, answers, marks))
        known = known_items(base.items, base.marks)
        write_rows(paths[KEPT], written_items(known, answers, marks))
        sitting = Sitting(
            checkpoint=examinee.name,
            items=base.items,
            base=base.marks,
            own=marks,
            settings=f"greedy, up to {config.max_new_tokens} new tokens, {examinee.template}, "
            f"both wordings right, exam {version[:8]}",
            num_resamples=num_resamples,
            seed=seed,
        )
        yield from general_scores(sitting, {exam: str(path) for exam, path in paths.items()})
        if isinstance(examinee, CheckpointExaminee):
            measure = Measure(folder, num_resamples, seed, workspace.progress)
            yield perplexity_score(examinee, passages, measure)
            yield divergence_score(examinee, base.items, base.said, measure, is_base=is_base)


GENERAL_STEP = Step("general", score_general, version=3)


class _Base(NamedTuple):
    """What all others are set beside."""

    name: str
    items: list[GeneralItem]
    marks: Mapping[str, Marks]
    said: list[BaseContinuation]


class _Asking(NamedTuple):
    """How answers are asked for, and where they are kept."""

    config: GeneralConfig
    cache_path: Path
    progress: Progress

    def base(self, examinee: CheckpointExaminee) -> _Base:
        items = asked_half("report", self.config.items_per_kind)
        marks = marks_of(items, self.answers(examinee, items))
        said = base_continuations(
            examinee,
            items,
            max_new_tokens=self.config.max_new_tokens,
            cache_path=self.cache_path,
            progress=self.progress,
        )
        return _Base(examinee.name, items, marks, said)

    def answers(self, examinee: Examinee, items: Sequence[GeneralItem]) -> list[GeneralAnswer]:
        return general_answers(
            examinee,
            items,
            max_new_tokens=self.config.max_new_tokens,
            cache_path=self.cache_path,
            progress=self.progress,
        )
