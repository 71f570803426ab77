"""Phases in order, each from the winner of the one before, resumed anywhere after a kill."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from urllib.parse import quote

from feldspar.config import StudentConfig, TrainConfig
from feldspar.errors import DiskError, TrainingError
from feldspar.progress import SILENT, Progress
from feldspar.records import Checkpoint, Conversation, Phase, ScoreItems
from feldspar.runs import read_rows
from feldspar.student.fit import FitSettings, fit
from feldspar.student.model import Student, save_checkpoint
from feldspar.student.token_rows import Kept, TokenRows, tokenise_once
from feldspar.student.training.lora import load_to_train
from feldspar.student.training.process_group import Ranks
from feldspar.student.training.resume_state import forget_state, state_bytes
from feldspar.student.training.schedule import Schedule, checkpoint_steps
from feldspar.student.training.tracking import NOWHERE, Tracking
from feldspar.train.early import early_signs
from feldspar.train.estimate import disk_bytes, schedule_of
from feldspar.train.held_out import HeldOut
from feldspar.train.select import (
    PhaseCandidate,
    Selection,
    append_line,
    choose,
    chosen_checkpoint,
    delete_others,
    kept_steps,
    read_lines,
    step_folder,
    to_values,
)

log = logging.getLogger(__name__)

TOKENS = "tokens"
"""Folder beside a phase's rows where their tokens are kept."""


def train_phases(
    base: Checkpoint,
    phases: Iterable[Phase],
    config: TrainConfig,
    *,
    student: StudentConfig,
    scores: Mapping[str, ScoreItems],
    min_selection_items: int,
    seed: int,
    here: Path,
    progress: Progress = SILENT,
    num_processes: int = 1,
    tracking: Tracking = NOWHERE,
) -> Iterator[Checkpoint]:
    """Train through the phases; give each one's chosen checkpoint, the result last.

    `scores` mark candidates, and the start of each phase, by what the phase's `select` names; rows
    that the phase sets apart are marked here. With fewer than `min_selection_items` items a phase's
    last checkpoint is taken. `here` holds selections.jsonl, candidates.jsonl, metrics.jsonl, a
    folder per phase, and the state of the one in training.
    `num_processes` share each step; scoring and choosing are this one's. `tracking` shows the
    figures elsewhere too.
    Raises TrainingError, and DiskError before anything is trained where there is no room.
    """
    trainer = _Trainer(
        config, student, scores, min_selection_items, seed, here, progress, num_processes
    )
    listed = list(phases)
    start, earlier_steps = base, 0
    with tracking.following(here / "metrics.jsonl"):
        for number, phase in enumerate(listed):
            selection = trainer.train(start, listed, number, earlier_steps)
            log.info("phase %s: step %d is %s", phase.name, selection.step, selection.reason)
            earlier_steps += selection.num_steps
            start = chosen_checkpoint(here, selection)
            yield start


class _Trainer:
    """What all phases share."""

    def __init__(
        self,
        config: TrainConfig,
        student: StudentConfig,
        scores: Mapping[str, ScoreItems],
        min_items: int,
        seed: int,
        here: Path,
        progress: Progress,
        num_processes: int,
    ) -> None:
        self.num_processes = num_processes
        self.config, self.student, self.scores = config, student, scores
        self.min_items, self.seed, self.here, self.progress = min_items, seed, here, progress

    def train(
        self, start: Checkpoint, phases: list[Phase], number: int, earlier_steps: int
    ) -> Selection:
        """Train one phase and decide on it, or find that this was done."""
        phase = phases[number]
        key = self._key(start, phase, earlier_steps)
        for done in read_lines(self.here / "selections.jsonl", Selection):
            if done.key == key and (self.here / done.path).is_dir():
                return done
        loaded = load_to_train(start.path, self.student, seed=self.seed)
        rows = read_phase(phase, loaded, self.student.max_length)
        schedule = schedule_of(phase, rows.num_rows, self.seed)
        if not schedule.num_steps:
            raise TrainingError(f"phase {phase.name}: it has no rows to train on; see `mix`")
        self._check_disk(loaded, phases[number:])
        folder = self.here / f"{number + 1}-{quote(phase.name, safe=' ')}"
        trial = _Trial(self, phase, key, folder, loaded)
        trial.mark_start(start)
        settings = self._settings(phase, schedule, earlier_steps)
        fit(
            loaded,
            rows,
            schedule,
            settings,
            here=self.here,
            on_checkpoint=trial.add,
            progress=self.progress,
            ranks=Ranks(
                num=self.num_processes,
                start=start.path,
                config=self.student,
                shard=self.config.shard,
                seed=self.seed,
            ),
        )
        selection = trial.decide(schedule.num_steps, rows)
        forget_state(self.here)
        return selection

    def score_of(self, phase: Phase) -> ScoreItems | None:
        """What a phase's checkpoint is chosen by; None where it takes the last."""
        if phase.select == "last":
            return None
        if phase.select == "log-likelihood":
            return HeldOut(phase, self.student)
        return self.scores[phase.select]

    def _settings(self, phase: Phase, schedule: Schedule, earlier_steps: int) -> FitSettings:
        config = self.config
        return FitSettings(
            learning_rate=phase.learning_rate,
            warmup_steps=phase.warmup_steps,
            earlier_steps=earlier_steps if config.warmup == "global" else 0,
            betas=config.betas,
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            tokens_per_micro_batch=config.tokens_per_micro_batch,
            packing=config.packing,
            optimizer_states=config.optimizer_states,
            recompute=config.recompute,
            checkpoint_steps=checkpoint_steps(
                schedule.steps_per_epoch, schedule.num_epochs, config.checkpoints_per_epoch
            ),
        )

    def _check_disk(self, student: Student, phases: list[Phase]) -> None:
        schedules = [schedule_of(p, [s.num_samples for s in p.sources], self.seed) for p in phases]
        needed = disk_bytes(schedules, self.config, student.num_parameters)
        self.here.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.here).free + state_bytes(self.here)
        if needed > free:
            raise DiskError(
                f"{self.here}: training needs {needed / 1e6:,.0f} MB of disk, {free / 1e6:,.0f} MB "
                "are free; make room, or lower train.keep_best"
            )

    def _key(self, start: Checkpoint, phase: Phase, earlier_steps: int) -> str:
        """What decides a phase's outcome. Where files lie does not."""
        described = asdict(phase)
        for source in (*described["sources"], *described["held_out"]):
            del source["path"]
        score = self.score_of(phase)
        parts = [start.digest, described, earlier_steps, self.seed]
        parts += [self.min_items, score and score.key]
        parts += [self.config.model_dump(mode="json", exclude={"phase", "shard"})]
        parts += [self.student.model_dump(mode="json", exclude={"base"})]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class _Trial:
    """The candidates of one phase."""

    def __init__(
        self, trainer: _Trainer, phase: Phase, key: str, folder: Path, student: Student
    ) -> None:
        self.trainer, self.phase, self.key = trainer, phase, key
        self.folder, self.student = folder, student
        self._path = trainer.here / "candidates.jsonl"
        self._score = trainer.score_of(phase)
        self._start: PhaseCandidate | None = None

    def mark_start(self, start: Checkpoint) -> None:
        """Score where the phase starts, if its checkpoint is chosen by score at all."""
        if self._score is not None:
            self._start = self._candidate(0, start, is_scored=True)

    def add(self, step: int) -> None:
        """Save a candidate, score it, and delete those that are not among the best."""
        if any(c.step == step for c in self._candidates()):
            return
        path = step_folder(self.folder, step)
        path.parent.mkdir(parents=True, exist_ok=True)
        saved = save_checkpoint(self.student, path, phase=self.phase.name, step=step)
        num_items = len(self._start.values or ()) if self._start else 0
        enough = self._start is not None and num_items >= self.trainer.min_items
        self._candidate(step, saved, is_scored=enough)
        delete_others(self.folder, kept_steps(self._candidates(), self.trainer.config.keep_best))

    def decide(self, num_steps: int, rows: TokenRows) -> Selection:
        """Choose among the candidates and write the decision down."""
        candidates = self._candidates()
        metric = self._score.metric if self._score else ""
        choice = choose(
            candidates,
            self._start,
            metric,
            min_items=self.trainer.min_items,
            keep_best=self.trainer.config.keep_best,
        )
        chosen, here = choice.candidate, self.trainer.here
        if choice.is_worse:
            log.warning(
                "phase %s made the model worse by its own measure: step %d is %s; lower its "
                "learning_rate or num_epochs, or look at its data",
                self.phase.name,
                chosen.step,
                choice.reason,
            )
        selection = Selection(
            key=self.key,
            phase=self.phase.name,
            step=chosen.step,
            path=step_folder(self.folder, chosen.step).relative_to(here).as_posix(),
            digest=chosen.digest,
            reason=choice.reason,
            metric=metric,
            num_items=len(self._start.values or ()) if self._start else 0,
            start=self._start.mean if self._start else None,
            candidates=choice.compared,
            num_steps=num_steps,
            num_dropped=dict(zip(rows.source_names, rows.num_dropped, strict=True)),
            early=early_signs(here / "metrics.jsonl", self.phase.name, num_steps),
        )
        append_line(here / "selections.jsonl", selection)
        return selection

    def _candidates(self) -> list[PhaseCandidate]:
        return [c for c in self._recorded() if c.step > 0]

    def _recorded(self) -> list[PhaseCandidate]:
        return [c for c in read_lines(self._path, PhaseCandidate) if c.key == self.key]

    def _candidate(self, step: int, checkpoint: Checkpoint, *, is_scored: bool) -> PhaseCandidate:
        for known in self._recorded():
            if known.step == step:
                return known
        scored = self._score.values(checkpoint) if self._score and is_scored else None
        values = None if scored is None else to_values(scored)
        candidate = PhaseCandidate(key=self.key, step=step, digest=checkpoint.digest, values=values)
        append_line(self._path, candidate)
        return candidate


def read_phase(phase: Phase, student: Student, max_length: int) -> TokenRows:
    """Tokenise a phase's sources, once for all phases. Rows left out are counted and told."""
    for source in phase.sources:
        if not Path(source.path).is_file():
            raise TrainingError(f"phase {phase.name}: {source.path} is gone; run `mix` again")
    sources = [
        Kept(s.name, read_rows(Path(s.path), Conversation), s.digest, Path(s.path).parent / TOKENS)
        for s in phase.sources
    ]
    rows = tokenise_once(student.template, sources, max_length)
    for name, dropped, kept in zip(rows.source_names, rows.num_dropped, rows.num_rows, strict=True):
        if dropped:
            log.warning(
                "phase %s: %d of %d rows of %s are left out: longer than student.max_length = %d, "
                "or with nothing to train on",
                phase.name,
                dropped,
                dropped + kept,
                name,
                max_length,
            )
    return rows
