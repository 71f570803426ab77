"""Phases in order, each from the winner of the one before, resumed anywhere after a kill."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from feldspar.config import StudentConfig, TrainConfig
from feldspar.errors import DiskError, TrainingError
from feldspar.keys import content_key
from feldspar.models.ray_workers import places_of
from feldspar.records import Checkpoint, Conversation, Phase, PhaseTraining, ScoreItems
from feldspar.runs import read_rows
from feldspar.stats.intervals import NUM_RESAMPLES, Difference, paired_difference
from feldspar.steps import Step, Workspace
from feldspar.stored import read_whole_lines
from feldspar.student.fit import LoopTrainer
from feldspar.student.model import Student
from feldspar.student.token_rows import Kept, TokenRows, tokenise_once
from feldspar.student.training.lora import load_to_train
from feldspar.student.training.objective import Objective
from feldspar.student.training.phase_trainer import PhaseSteps, PhaseTrainer, SaveCheckpoint
from feldspar.student.training.process_group import LaunchSettings
from feldspar.student.training.resume_state import state_bytes
from feldspar.student.training.schedule import Schedule, checkpoint_steps
from feldspar.student.training.settings import FitSettings, settings_of
from feldspar.student.training.tracking import NOWHERE, Tracking
from feldspar.train.early import early_signs
from feldspar.train.estimate import disk_bytes, schedule_of
from feldspar.train.held_out import HeldOut
from feldspar.train.kept_to_base import held_to_base
from feldspar.train.merge import MERGED, Examiners, merge
from feldspar.train.select import (
    PhaseCandidate,
    Selection,
    append_line,
    choose,
    chosen_checkpoint,
    costs_more_than_it_taught,
    delete_others,
    kept_steps,
    step_folder,
    to_values,
)

log = logging.getLogger(__name__)

TOKENS = "tokens"
"""Folder beside a phase's rows where their tokens are kept."""


def train_phases(
    workspace: Workspace,
    base: Checkpoint,
    phases: Iterable[Phase],
    trainings: Iterable[PhaseTraining],
    config: TrainConfig,
    *,
    student: StudentConfig,
    scores: Mapping[str, ScoreItems],
    kept: ScoreItems | None = None,
    min_selection_items: int,
    seed: int,
    tracking: Tracking = NOWHERE,
    trainer: PhaseTrainer | None = None,
) -> Iterator[Checkpoint]:
    """Train through the phases; give each one's chosen checkpoint, the result last.

    `trainings` say how each phase is trained, `config` what all of them share. `scores` mark
    candidates, and the start of each phase, by what its `select` names; rows that the phase sets
    apart are marked by their log-likelihood. `kept` marks what is to be kept: where a phase is
    scored, its start and its choice are; with `config.merge` after each phase the merged checkpoint
    is what it gives (merge.py), by `scores["exams"]` and `kept`. With fewer than
    `min_selection_items` items a phase's last checkpoint is taken. The workspace's folder gets
    selections.jsonl, candidates.jsonl, metrics.jsonl, a folder per phase, and the state of the one
    in training; its processes share each step, while the first alone scores and chooses. `tracking`
    shows the figures elsewhere too. `trainer` takes the place of the package's own loop.
    Raises TrainingError, and DiskError before anything is trained where there is no room.
    """
    if trainer is None:
        launch = LaunchSettings(
            num_processes=workspace.num_processes,
            config=student,
            shard=config.shard,
            seed=seed,
            places=places_of(config.workers),
        )
        trainer = LoopTrainer(launch=launch, progress=workspace.progress)
    marks = _Marks(scores=scores, kept=kept, min_items=min_selection_items)
    phase_loop = _Phases(workspace, base, config, student, marks, seed, trainer)
    listed = list(zip(phases, trainings, strict=True))
    start, earlier_steps = base, 0
    with tracking.following(workspace.folder / "metrics.jsonl"):
        for number, (phase, _) in enumerate(listed):
            selection = phase_loop.train(start, listed, number, earlier_steps)
            log.info("phase %s: step %d is %s", phase.name, selection.step, selection.reason)
            earlier_steps += selection.num_steps
            end = chosen_checkpoint(workspace.folder, selection)
            start = phase_loop.merge(base, start, end, number) if config.merge else end
            yield start


TRAINED_STEP = Step("trained", train_phases, version=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Marks:
    """What checkpoints are marked by."""

    scores: Mapping[str, ScoreItems]
    kept: ScoreItems | None
    min_items: int


class _Phases:
    """What all phases share."""

    def __init__(
        self,
        workspace: Workspace,
        base: Checkpoint,
        config: TrainConfig,
        student: StudentConfig,
        marks: _Marks,
        seed: int,
        trainer: PhaseTrainer,
    ) -> None:
        self.folder, self.progress, self.trainer = workspace.folder, workspace.progress, trainer
        self.base, self.config, self.student, self.marks = base, config, student, marks
        self.min_items, self.seed = marks.min_items, seed

    def train(
        self,
        start: Checkpoint,
        phases: list[tuple[Phase, PhaseTraining]],
        number: int,
        earlier_steps: int,
    ) -> Selection:
        """Train one phase and decide on it, or find that this was done."""
        phase, training = phases[number]
        key = self._key(start, phase, training, earlier_steps)
        for done in read_whole_lines(self.folder / "selections.jsonl", Selection):
            if done.key == key and (self.folder / done.path).is_dir():
                return done
        loaded = load_to_train(start.path, self.student, seed=self.seed)
        rows = read_phase(phase, loaded, self.student.max_length)
        schedule = schedule_of(phase, training, rows.num_rows, self.seed)
        if not schedule.num_steps:
            raise TrainingError(f"phase {phase.name}: it has no rows to train on; see `mix`")
        self._check_disk(loaded, phases[number:])
        folder = self.folder_of(phase.name, number)
        trial = _Trial(self, self.score_of(phase, training), key, folder, phase.name)
        trial.mark_start(start)
        steps = PhaseSteps(
            student=loaded,
            start=start.path,
            rows=rows,
            schedule=schedule,
            settings=self._settings(training, schedule, earlier_steps),
            folder=self.folder,
            objective=self._objective(loaded, phase, rows),
        )
        self.trainer.train(steps, trial.add)
        selection = trial.decide(schedule.num_steps, rows)
        self.trainer.forget(self.folder)
        return selection

    def _objective(self, loaded: Student, phase: Phase, rows: TokenRows) -> Objective | None:
        """Cross-entropy, with `train.kl` held to the base."""
        if self.config.kl is None:
            return None
        return held_to_base(
            self.base, loaded, phase, rows, self.config.kl, self.student, self.folder,
            self.progress, packing=self.config.packing,
        )  # fmt: skip

    def folder_of(self, phase: str, number: int) -> Path:
        return self.folder / f"{number + 1}-{quote(phase, safe=' ')}"

    def merge(
        self, base: Checkpoint, phase_start: Checkpoint, end: Checkpoint, number: int
    ) -> Checkpoint:
        """What of a phase's change is kept, by `[train.merge]`."""
        config = self.config.merge
        assert config is not None
        examiners = Examiners(
            learned=self.marks.scores["exams"], kept=self.marks.kept, min_items=self.min_items
        )
        return merge(
            base if config.start == "base" else phase_start,
            end,
            config,
            examiners,
            self.folder,
            self.folder_of(end.phase, number) / MERGED,
            progress=self.progress,
        )

    def score_of(self, phase: Phase, training: PhaseTraining) -> ScoreItems | None:
        """What a phase's checkpoint is chosen by; None where it takes the last."""
        if training.select == "last":
            return None
        if training.select == "log-likelihood":
            return HeldOut(phase, self.student)
        return self.marks.scores[training.select]

    def _settings(
        self, training: PhaseTraining, schedule: Schedule, earlier_steps: int
    ) -> FitSettings:
        config = self.config
        return settings_of(
            config,
            learning_rate=training.learning_rate,
            warmup_steps=training.warmup_steps,
            earlier_steps=earlier_steps if config.warmup == "global" else 0,
            checkpoint_steps=checkpoint_steps(
                schedule.steps_per_epoch, schedule.num_epochs, config.checkpoints_per_epoch
            ),
        )

    def _check_disk(self, student: Student, phases: list[tuple[Phase, PhaseTraining]]) -> None:
        schedules = [
            schedule_of(p, how, [s.num_samples for s in p.sources], self.seed) for p, how in phases
        ]
        trained = sum(p.numel() for p in student.model.parameters() if p.requires_grad)
        needed = disk_bytes(schedules, self.config, student.num_parameters, trained)
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free + state_bytes(self.folder)
        if needed > free:
            raise DiskError(
                f"{self.folder}: training needs {needed / 1e6:,.0f} MB of disk, "
                f"{free / 1e6:,.0f} MB are free; make room, or lower train.keep_best"
            )

    def _key(
        self, start: Checkpoint, phase: Phase, training: PhaseTraining, earlier_steps: int
    ) -> str:
        """What decides a phase's outcome."""
        score = self.score_of(phase, training)
        shared = self.config.of_optimizer()
        decides = (start, phase, training, earlier_steps, self.seed, self.min_items)
        held_to = self.base if self.config.kl else None
        return content_key(*decides, score, shared, self.student, held_to)


class _Trial:
    """The candidates of one phase."""

    def __init__(
        self, phases: _Phases, score: ScoreItems | None, key: str, folder: Path, phase: str
    ) -> None:
        self.phases, self.phase, self.key = phases, phase, key
        self.folder = folder
        self._path = phases.folder / "candidates.jsonl"
        self._score = score
        self._start: PhaseCandidate | None = None
        self._start_checkpoint: Checkpoint | None = None

    def mark_start(self, start: Checkpoint) -> None:
        """Score where the phase starts, if its checkpoint is chosen by score at all."""
        if self._score is not None:
            self._start_checkpoint = start
            self._start = self._candidate(0, start, is_scored=True)

    def add(self, step: int, save: SaveCheckpoint) -> None:
        """Save a candidate, score it, and delete those that are not among the best."""
        path = step_folder(self.folder, step)
        # One that was not among the best is gone, and is deleted again; one that was lost is not.
        if path.is_dir() and any(c.step == step for c in self._candidates()):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        saved = save(path)
        num_items = len(self._start.values or ()) if self._start else 0
        enough = self._start is not None and num_items >= self.phases.min_items
        self._candidate(step, saved, is_scored=enough)
        delete_others(self.folder, kept_steps(self._candidates(), self.phases.config.keep_best))

    def decide(self, num_steps: int, rows: TokenRows) -> Selection:
        """Choose among the candidates and write the decision down."""
        candidates = self._candidates()
        metric = self._score.metric if self._score else ""
        choice = choose(
            candidates,
            self._start,
            metric,
            min_items=self.phases.min_items,
        )
        chosen, folder = choice.candidate, self.phases.folder
        kept = self._kept(chosen)
        change = next(c.to_start for c in choice.compared if c.step == chosen.step)
        if reason := costs_more_than_it_taught(change, kept):
            log.warning("phase %s %s", self.phase, reason)
        if choice.is_worse:
            log.warning(
                "phase %s made the model worse by its own measure: step %d is %s; lower its "
                "learning_rate or num_epochs, or look at its data",
                self.phase,
                chosen.step,
                choice.reason,
            )
        selection = Selection(
            key=self.key,
            phase=self.phase,
            step=chosen.step,
            path=step_folder(self.folder, chosen.step).relative_to(folder).as_posix(),
            digest=chosen.digest,
            reason=choice.reason,
            metric=metric,
            num_items=len(self._start.values or ()) if self._start else 0,
            start=self._start.mean if self._start else None,
            candidates=choice.compared,
            num_steps=num_steps,
            num_dropped=dict(zip(rows.source_names, rows.num_dropped, strict=True)),
            early=early_signs(folder / "metrics.jsonl", self.phase, num_steps),
            kept=kept,
        )
        append_line(folder / "selections.jsonl", selection)
        return selection

    def _kept(self, chosen: PhaseCandidate) -> Difference | None:
        """Change of what is to be kept, from the phase's start to its choice."""
        kept = self.phases.marks.kept
        if kept is None or self._start_checkpoint is None:
            return None
        path = step_folder(self.folder, chosen.step)
        end = Checkpoint(path=str(path), digest=chosen.digest, phase=self.phase, step=chosen.step)
        before, after = (to_values(kept.values(c)) for c in (self._start_checkpoint, end))
        if not before:
            return None
        return paired_difference(before, after, NUM_RESAMPLES, seed=0)

    def _candidates(self) -> list[PhaseCandidate]:
        return [c for c in self._recorded() if c.step > 0]

    def _recorded(self) -> list[PhaseCandidate]:
        return [c for c in read_whole_lines(self._path, PhaseCandidate) if c.key == self.key]

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
