"""The general-knowledge exam over models: the base's answers beside each other's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from feldspar.config import GeneralConfig, StudentConfig
from feldspar.evaluate.examinee import CheckpointExaminee, Examinee, all_examinees, file_name
from feldspar.evaluate.general.answers import general_answers
from feldspar.evaluate.general.marks import GeneralAnswer, marks_of
from feldspar.evaluate.general.questions import EXAM, general_items, halves
from feldspar.evaluate.general.scores import (
    KEPT,
    Sitting,
    general_scores,
    known_items,
    written_items,
)
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
    items = halves(general_items())["report"]
    base_name, base = named_checkpoints[0]

    def answered(examinee: Examinee) -> list[GeneralAnswer]:
        return general_answers(
            examinee,
            items,
            max_new_tokens=config.max_new_tokens,
            cache_path=cache_path,
            progress=workspace.progress,
        )

    base_marks = marks_of(items, answered(CheckpointExaminee(base_name, base, student)))
    known = known_items(items, base_marks)
    for examinee in all_examinees(named_checkpoints, student, server):
        answers = answered(examinee)
        is_base = examinee.name == base_name
        marks = base_marks if is_base else marks_of(items, answers)
        folder = workspace.folder / "items" / file_name(examinee.name)
        folder.mkdir(parents=True, exist_ok=True)
        paths = {EXAM: folder / "all.jsonl.zst", KEPT: folder / "kept.jsonl.zst"}
        write_rows(paths[EXAM], written_items(items, answers, marks))
        write_rows(paths[KEPT], written_items(known, answers, marks))
        sitting = Sitting(
            checkpoint=examinee.name,
            items=items,
            base=base_marks,
            own=marks,
            settings=f"greedy, up to {config.max_new_tokens} new tokens, {examinee.template}, "
            f"both wordings right, exam {version[:8]}",
            num_resamples=num_resamples,
            seed=seed,
        )
        yield from general_scores(sitting, {exam: str(path) for exam, path in paths.items()})


GENERAL_STEP = Step("general", score_general, version=1)
