"""The files that a recipe names: rows, exams, benchmarks, MT-Bench."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from feldspar.ahead.checks import Note, Subject
from feldspar.errors import RecipeError
from feldspar.evaluate.exams.read import all_exam_files, read_exams
from feldspar.evaluate.general.questions import cannot_be_asked, general_items, general_text
from feldspar.evaluate.mt_bench.files import find_mt_bench, read_answers, read_mt_bench
from feldspar.mix.earlier import rows_of_data
from feldspar.mix.files import BadRow, read_file
from feldspar.mix.phases import check_phases
from feldspar.runs import existing, open_step
from feldspar.taxonomy import find_leaves, read_readable
from feldspar.tokens.count import TokenCounter

_ROWS_READ = 1000


def names(subject: Subject) -> str | None:
    """Phases and data are told apart, and leave room for their own rows."""
    recipe = subject.recipe
    check_phases(recipe.train.phase, recipe.mix)
    if len({d.name for d in recipe.data}) < len(recipe.data):
        raise RecipeError("two [[data]] entries have one name; give each its own")
    phases = ", ".join(phase.name for phase in recipe.train.phase)
    return f"phases {phases}" if phases else "no phases"


def taxonomy(subject: Subject) -> str | None:
    """Leaves that can be read; a run reads them first of all itself."""
    config = subject.recipe.taxonomy
    if config is None:
        return None
    if subject.is_run:
        return f"{len(find_leaves(config))} leaves"
    found = read_readable(config)
    says = f"{len(found.leaves)} leaves"
    if found.left_out:
        return Note(f"{says}; {len(found.left_out)} cannot be read: {found.left_out[0]}")
    return says


def data(subject: Subject) -> str | None:
    """Files of rows: there, readable, and of use as far as their first rows show."""
    recipe = subject.recipe
    if not recipe.data and recipe.mix.base_replay is None:
        return None
    num_files = 0
    for config in recipe.data:
        if config.run is None or subject.is_run:
            rows = rows_of_data(config)
            num_files += _first_rows(rows, config.name) if isinstance(rows, Path) else 1
    replay, named = recipe.mix.base_replay, subject.named.mix.base_replay
    is_made = named is not None and (named.source or "").startswith("world:")
    if replay is not None and replay.source is not None and (subject.is_run or not is_made):
        num_files += _first_rows(Path(replay.source), "base replay")
    if replay is not None and replay.prompts is not None:
        existing(Path(replay.prompts))
    return f"{num_files} sources of rows can be read" if num_files else None


def own_exams(subject: Subject) -> str | None:
    """Every item of every own exam."""
    exams = subject.recipe.evaluate.exam
    if not exams:
        return None
    files = all_exam_files(exams)
    return f"{sum(1 for _ in read_exams(files))} items in {len(files)} exams"


def general(subject: Subject) -> str | None:
    """The general-knowledge exam, and whether the base's tokenizer can write it."""
    config, base = subject.recipe.evaluate.general, Path(subject.recipe.student.base)
    if not config.enabled or not subject.reaches("scores"):
        return None
    general_text(None if config.text is None else Path(config.text))
    says = f"{len(general_items())} general questions in two wordings; half of them are reported"
    if not (base / "tokenizer.json").is_file():
        return says
    why_not = cannot_be_asked(TokenCounter(base))
    return Note(why_not) if why_not else says


def benchmarks(subject: Subject) -> str | None:
    """lm_eval and its tasks; local data in their columns, or a hub to have it from."""
    config = subject.recipe.evaluate
    if not config.benchmark or not subject.reaches("scores"):
        return None
    if subject.run_path is not None and open_step(subject.run_path, "benchmarks") is not None:
        # What was scored before is found again, also where there is no hub.
        return "scored before"
    if find_spec("lm_eval") is None:
        # Said among the packages that are missing.
        return None
    from feldspar.evaluate.benchmarks.tasks import check_data, find_tasks, load_task

    for benchmark in config.benchmark:
        if benchmark.data is not None:
            for name in find_tasks(benchmark):
                load_task(name, benchmark)
        elif subject.is_run:
            check_data(benchmark)
        else:
            find_tasks(benchmark)
    tasks = ", ".join(b.task for b in config.benchmark)
    from_hub = [b.task for b in config.benchmark if b.data is None]
    if from_hub and not subject.is_run:
        return Note(f"{tasks}; the run has the data of {', '.join(from_hub)} from the hub")
    return tasks


def mt_bench(subject: Subject) -> str | None:
    """Its questions, references and prompts."""
    config = subject.recipe.evaluate.mt_bench
    if config is None or not subject.reaches("preferred"):
        return None
    if config.data is None and config.fetch and not subject.is_run:
        return Note("the run fetches the published files")
    bench = read_mt_bench(find_mt_bench(config))
    if config.baseline is not None:
        read_answers(existing(Path(config.baseline)))
    return f"{len(bench.questions)} questions"


def _first_rows(path: Path, name: str) -> int:
    """1. Raises RecipeError where none of the first rows is of use."""
    bad: BadRow | None = None
    for row in islice(read_file(existing(path), name), _ROWS_READ):
        if not isinstance(row, BadRow):
            return 1
        bad = bad or row
    if bad is None:
        raise RecipeError(f"{path}: no rows; write one JSON object a line")
    raise RecipeError(f"{path}:{bad.line}: {bad.reason}, and no row near it is better")
