"""Benchmarks over models: each task asked once per model and settings, ever."""

from __future__ import annotations

import hashlib
import importlib
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from feldspar.config import BenchmarkConfig, StudentConfig
from feldspar.evaluate.benchmarks.scores import BenchmarkItem, TaskResult, benchmark_scores
from feldspar.evaluate.benchmarks.tasks import (
    data_files,
    find_tasks,
    harness_version,
    load_harness,
    load_task,
    metric_of,
    num_fewshot,
)
from feldspar.evaluate.examinee import CheckpointExaminee, Examinee, all_examinees, file_name
from feldspar.files import write_json
from feldspar.keys import content_key
from feldspar.progress import SILENT, Progress
from feldspar.records import Checkpoint, Score
from feldspar.runs import read_rows, write_rows
from feldspar.steps import Step, Workspace
from feldspar.stored import read_stored

VERSION = 1
"""Of the way tasks are asked: part of what results are kept under."""


def score_benchmarks(
    workspace: Workspace,
    named_checkpoints: Sequence[tuple[str, Checkpoint]],
    configs: Sequence[BenchmarkConfig],
    *,
    student: StudentConfig,
    server: Examinee | None = None,
    server_tasks: Sequence[str] = (),
    harness: str,
    cache_path: Path,
) -> Iterator[Score]:
    """Each benchmark's score on each model, with its settings; items in `FOLDER/items/NAME/`.

    `server` is put through `server_tasks` alone.

    Results are found again under `cache_path` by model, task, settings, data and lm_eval's version
    (`harness`), task by task: a second run, or one that was killed, asks only for what is not
    there.
    """
    assert harness == harness_version()
    for examinee in all_examinees(named_checkpoints, student, server):
        opened = _Opened(examinee, workspace.progress)
        for config in configs:
            if examinee is server and config.task not in server_tasks:
                continue
            results = _results(config, opened, cache_path)
            folder = workspace.folder / "items" / file_name(examinee.name) / config.task
            folder.mkdir(parents=True, exist_ok=True)
            for result in results:
                shutil.copyfile(result.items_path, folder / result.items_name)
            settings = _settings(config) + results[0].way
            yield from benchmark_scores(
                examinee.name, config.task, results, settings=settings, folder=folder
            )


BENCHMARKS_STEP = Step("benchmarks", score_benchmarks, version=1)


def benchmark_items(
    checkpoint: Checkpoint,
    config: BenchmarkConfig,
    *,
    student: StudentConfig,
    cache_path: Path,
    progress: Progress = SILENT,
) -> list[BenchmarkItem]:
    """What a checkpoint gave to every item of a benchmark, kept as in `score_benchmarks`."""
    name = f"{checkpoint.phase}/{checkpoint.step}"
    opened = _Opened(CheckpointExaminee(name, checkpoint, student), progress)
    results = _results(config, opened, cache_path)
    return [item for result in results for item in result.items]


class _Opened:
    """An examinee that is loaded at most once for each way of asking, when it is first needed."""

    def __init__(self, examinee: Examinee, progress: Progress) -> None:
        self.examinee, self.progress = examinee, progress
        self._lms: dict[bool, Any] = {}

    def lm(self, config: BenchmarkConfig) -> Any:
        if config.chat_template not in self._lms:
            load_harness()
            self._lms = {config.chat_template: self.examinee.lm(config, self.progress)}
        return self._lms[config.chat_template]


def _results(config: BenchmarkConfig, opened: _Opened, cache_path: Path) -> list[TaskResult]:
    names = find_tasks(config)
    results = []
    title = f"{config.task} on {opened.examinee.name}"
    with opened.progress.task(title, len(names), "tasks") as bar:
        for name in names:
            results.append(_result(name, config, opened, cache_path))
            bar.advance(1)
    return results


def _result(name: str, config: BenchmarkConfig, opened: _Opened, cache_path: Path) -> TaskResult:
    key = _key(name, config, opened.examinee.key)
    folder = cache_path / key[:2] / key
    summary_path, items_path = folder / "result.json", folder / "items.jsonl.zst"
    if not summary_path.exists():
        asked = ask(opened.lm(config), name, config)
        folder.mkdir(parents=True, exist_ok=True)
        write_rows(items_path, asked.items, is_shared=True)
        write_json(summary_path, asked.summary, is_shared=True)
    summary = read_stored(summary_path, dict[str, Any], f"delete {folder} and run again")
    return TaskResult(
        name=name,
        metric=summary["metric"],
        value=summary["value"],
        stderr=summary["stderr"],
        way=summary.get("way", ""),
        items=tuple(read_rows(items_path, BenchmarkItem)),
        items_path=items_path,
        items_name=f"{name}-{key[:8]}.jsonl.zst",
    )


class TaskOutcome(NamedTuple):
    """What a task gave: its figure with lm_eval's standard error and settings, and its items."""

    summary: dict[str, object]
    items: list[BenchmarkItem]


def ask(lm: Any, name: str, config: BenchmarkConfig) -> TaskOutcome:
    """One of lm_eval's tasks, asked through its own `evaluate`, as its command line would."""
    harness = load_harness()
    task = load_task(name, config)
    random.seed(0)
    with _without_bars():
        found = harness.evaluate(
            lm=lm,
            task_dict={"tasks": {name: task}, "groups": {}, "group_map": {}},
            limit=config.limit,
            bootstrap_iters=1000,
            log_samples=True,
            apply_chat_template=config.chat_template,
            fewshot_as_multiturn=config.chat_template,
        )
    result = found["results"][name]
    metric, filtered = metric_of(name, result)
    stderr = result.get(f"{metric}_stderr,{filtered}")
    summary = {
        "task": name,
        "metric": metric if filtered == "none" else f"{metric} ({filtered})",
        "value": result[f"{metric},{filtered}"],
        "stderr": stderr if isinstance(stderr, (int, float)) else None,
        "num_fewshot": found["n-shot"][name],
        "version": found["versions"][name],
        "lm_eval": harness_version(),
        "way": lm.way,
    }
    samples = [s for s in found["samples"][name] if s["filter"] == filtered]
    return TaskOutcome(summary, [_item(name, task, sample, metric) for sample in samples])


def _item(name: str, task: Any, sample: dict[str, Any], metric: str) -> BenchmarkItem:
    doc, target = sample["doc"], sample["target"]
    question: Any = task.doc_to_text(doc)
    choices = task.doc_to_choice(doc) if task.config.doc_to_choice is not None else []
    if isinstance(question, int):
        # Contexts differ and what follows is one: winogrande.
        right, question, reference = question, f"{choices[question]} {target}", choices[question]
    else:
        right = choices.index(target) if target in choices else target
        reference = choices[right] if choices and isinstance(right, int) else str(target)
    said = str(sample["filtered_resps"][0])
    if choices:
        totals = [response[0] for response in sample["filtered_resps"]]
        lengths = [len(choice) if metric == "acc_norm" else 1.0 for choice in choices]
        weighed = [total / length for total, length in zip(totals, lengths, strict=False)]
        said = choices[weighed.index(max(weighed))]
    value = sample.get(metric)
    return BenchmarkItem(
        id=f"{name} {sample['doc_id']} {sample['doc_hash'][:12]}",
        task=name,
        question=str(question),
        reference=str(reference),
        said=str(said),
        value=float(value) if isinstance(value, (int, float)) else None,
    )


def _key(name: str, config: BenchmarkConfig, model_key: str) -> str:
    digests = []
    for path in data_files(config):
        with path.open("rb") as file:
            digests.append([path.name, hashlib.file_digest(file, "sha256").hexdigest()])
    parts = [VERSION, harness_version(), model_key, name, num_fewshot(config), config.limit]
    parts += [config.chat_template, config.split, digests]
    return content_key(parts)


def _settings(config: BenchmarkConfig) -> str:
    """`5-shot, no chat template, lm_eval 0.4.13`."""
    shots = num_fewshot(config)
    parts = ["the task's own shots" if shots is None else f"{shots}-shot"]
    parts.append("chat template" if config.chat_template else "no chat template")
    if config.limit is not None:
        parts.append(f"first {config.limit} items of a task")
    if config.split != "published":
        parts.append("validation part")
    if config.data is not None:
        parts.append(f"data of {Path(config.data).name}")
    parts.append(f"lm_eval {harness_version()}")
    return ", ".join(parts)


class _without_bars:
    """lm_eval draws bars of its own over ours."""

    _module: Any

    def __enter__(self) -> None:
        importlib.import_module("datasets").disable_progress_bars()
        self._module = importlib.import_module("lm_eval.api.task")
        self._bars = self._module.tqdm
        self._module.tqdm = _no_bar

    def __exit__(self, *_: object) -> None:
        self._module.tqdm = self._bars


def _no_bar(rows: Any, **_: object) -> Any:
    return rows
