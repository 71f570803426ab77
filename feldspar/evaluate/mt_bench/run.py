"""MT-Bench over models: answered, judged, kept, and scored."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from feldspar.config import MTBenchConfig, StudentConfig
from feldspar.errors import RecipeError
from feldspar.evaluate.examinee import Examinee, all_examinees, file_name
from feldspar.evaluate.mt_bench.answers import Answers, Drawing, answer_questions
from feldspar.evaluate.mt_bench.files import MTBench, read_answers
from feldspar.evaluate.mt_bench.judging import ComparedAnswers, Rated, compare_answers, rate_answers
from feldspar.evaluate.mt_bench.scores import EXAM, mt_bench_scores, values_of_questions
from feldspar.keys import content_key
from feldspar.progress import SILENT, Progress
from feldspar.records import Checkpoint, Score
from feldspar.runs import write_rows
from feldspar.steps import Step, Workspace
from feldspar.teacher import Teacher

log = logging.getLogger(__name__)
MANY_ERRORS = 0.1
"""Share of judge errors from which a run says so."""


class ScoreChats:
    """MT-Bench of one checkpoint after another: a `ScoreCheckpoint` for preference tuning's rounds.

    Gives the figure over all questions and the share of judge errors alone. Answers and judgments
    are kept in `folder` by settings and checkpoint.
    """

    def __init__(
        self,
        bench: MTBench,
        config: MTBenchConfig,
        *,
        base: Checkpoint,
        judge: Teacher,
        student: StudentConfig,
        num_resamples: int,
        folder: Path,
        seed: int,
        progress: Progress = SILENT,
    ) -> None:
        self._config = config
        self._base = base
        self._score = functools.partial(
            score_mt_bench,
            bench=bench,
            config=config,
            judge=judge,
            student=student,
            num_resamples=num_resamples,
            seed=seed,
        )
        asked = config.asked()
        # Answers of other settings are others, whatever checkpoint they are of.
        of_answers = folder / content_key(bench, asked, student, seed)[:16]
        self._workspace = Workspace(folder=of_answers, progress=progress)
        self.key = content_key(bench, asked, judge, student, num_resamples, seed)

    def __call__(self, checkpoint: Checkpoint) -> list[Score]:
        named = [(checkpoint.phase, checkpoint)]
        if self._config.mode == "pairwise" and self._config.baseline is None:
            named.insert(0, ("base", self._base))
        scored = list(self._score(self._workspace, named))
        return [s for s in scored if s.checkpoint == checkpoint.phase and s.exam == EXAM]

    def values(self, checkpoint: Checkpoint) -> dict[str, float]:
        """Mean rating, or share of wins, by question."""
        return values_of_questions(self(checkpoint)[0])


def score_mt_bench(
    workspace: Workspace,
    named_checkpoints: Sequence[tuple[str, Checkpoint]],
    bench: MTBench,
    config: MTBenchConfig,
    *,
    judge: Teacher,
    student: StudentConfig,
    server: Examinee | None = None,
    num_resamples: int,
    seed: int,
) -> Iterator[Score]:
    """Ratings, or rates of wins over `config.baseline`, of each checkpoint and of `server`'s model.

    Answers are in `answers/DIGEST/` of the workspace, of a served model in `answers/MODEL/`, the
    judge's words in `judgments/NAME.jsonl.zst`. Answers that an earlier try left are used again;
    judgments, and what a server answered, come out of the journal.
    """
    answers: dict[str, list[Answers]] = {}
    templates: dict[str, str] = {}
    for examinee in all_examinees(named_checkpoints, student, server):
        answers[examinee.name] = answer_questions(
            examinee,
            bench.questions,
            Drawing(config.max_new_tokens, seed),
            num_runs=config.num_runs,
            kept_path=workspace.folder / "answers" / examinee.folder_name,
            progress=workspace.progress,
        )
        templates[examinee.name] = examinee.template
    baseline = _baseline(config, bench, answers) if config.mode == "pairwise" else None
    for name in answers:
        if config.mode == "pairwise" and config.baseline is None and name == "base":
            continue
        judged = asyncio.run(_judge(judge, bench, answers[name], baseline, workspace.progress))
        path = workspace.folder / "judgments" / f"{file_name(name)}.jsonl.zst"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_rows(path, judged)
        scores = list(
            mt_bench_scores(
                name,
                judged,
                num_resamples=num_resamples,
                seed=seed,
                settings=_settings(config, judge, templates[name]),
                answers_path=str(path),
            )
        )
        _say_errors(name, scores[-1])
        yield from scores


MT_BENCH_STEP = Step("mt-bench", score_mt_bench, version=2)


def _settings(config: MTBenchConfig, judge: Teacher, template: str) -> str:
    parts = [f"judge {judge.key}", config.mode, "category temperatures"]
    parts.append(f"up to {config.max_new_tokens} new tokens")
    if config.mode == "pairwise":
        parts.append(f"against {Path(config.baseline).stem if config.baseline else 'base'}")
    return f"{', '.join(parts)}; {template}"


def _baseline(
    config: MTBenchConfig, bench: MTBench, answers: dict[str, list[Answers]]
) -> list[Answers]:
    if config.baseline is None:
        return answers["base"]
    said = read_answers(Path(config.baseline))
    for question in bench.questions:
        if len(said.get(question.id, ())) < len(question.turns):
            raise RecipeError(
                f"{config.baseline}: no answers to question {question.id}; name a file that "
                "has all, in FastChat's layout"
            )
    flat = {(q, turn): text for q, texts in said.items() for turn, text in enumerate(texts, 1)}
    return [flat] * config.num_runs


async def _judge(
    judge: Teacher,
    bench: MTBench,
    runs: Sequence[Answers],
    baseline: Sequence[Answers] | None,
    progress: Progress,
) -> list[Rated] | list[ComparedAnswers]:
    if baseline is None:
        rated: list[Rated] = []
        for run, answers in enumerate(runs, start=1):
            rated += await rate_answers(judge, bench, answers, run, progress)
        return rated
    compared: list[ComparedAnswers] = []
    for run, pair in enumerate(zip(runs, baseline, strict=True), start=1):
        compared += await compare_answers(judge, bench, pair, run, progress)
    return compared


def _say_errors(name: str, errors: Score) -> None:
    if errors.value >= MANY_ERRORS:
        log.warning(
            "MT-Bench of %s: %.0f %% of %d judgments could not be read and count for nothing; see "
            "%s, or name another judge",
            name,
            100 * errors.value,
            errors.num_items,
            errors.answers_path,
        )
