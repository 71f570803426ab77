"""lm_eval's own task definitions: found by name, with the published shots, on the hub or offline.

Settings are those of the Open LLM Leaderboard's first version, which the seeds' tables use. The
module loads lm_eval when it is asked for something, not when it is imported.
"""

from __future__ import annotations

import functools
import importlib
import json
import logging
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import TemplateError

from feldspar.config import BenchmarkConfig
from feldspar.errors import RecipeError


class Setting(NamedTuple):
    """How a benchmark was published: shots, and the metric with its filter."""

    num_fewshot: int
    metric: str
    filter: str = "none"


PUBLISHED: Mapping[str, Setting] = {
    "mmlu": Setting(5, "acc"),
    "arc_challenge": Setting(25, "acc_norm"),
    "hellaswag": Setting(10, "acc_norm"),
    "winogrande": Setting(5, "acc"),
    "gsm8k": Setting(5, "exact_match", "strict-match"),
}
_FOLDERS = ("mmlu/default", "arc", "hellaswag", "winogrande", "gsm8k")
"""Of lm_eval's tasks: where the published ones are defined."""
SPLIT_FILES = ("train", "validation", "dev", "test")
HUB_SECONDS = 10.0
"""Longest wait for a sign of the hub."""
_SPLIT_KEYS = ("training_split", "validation_split", "test_split", "fewshot_split")


def load_harness() -> Any:
    """The lm_eval package. Raises RecipeError with the cure where it is not installed."""
    try:
        # datasets and its friends warn of things that no user can change.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("lm_eval.tasks")
            harness = importlib.import_module("lm_eval")
    except ImportError as error:
        raise RecipeError(
            f"benchmarks need lm_eval ({error}); install it: pip install 'feldspar[eval]'"
        ) from error
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return harness


def harness_version() -> str:
    """lm_eval's version: another one may ask other prompts."""
    from importlib.metadata import version

    return version("lm_eval")


def find_tasks(config: BenchmarkConfig) -> list[str]:
    """The tasks that a benchmark consists of, in order: 57 for `mmlu`, itself for most.

    Raises RecipeError where lm_eval has no such task, or `data` has no files.
    """
    index = _index(config.task)
    if config.task not in index:
        near = _near(config.task, index)
        raise RecipeError(
            f"evaluate.benchmark: lm_eval has no task {config.task!r}{near}; "
            "`lm-eval ls tasks` lists them"
        )
    if config.data is not None and not _split_paths(Path(config.data)):
        raise RecipeError(
            f"evaluate.benchmark {config.task!r}: {config.data} holds none of "
            f"{', '.join(f'{name}.jsonl' for name in SPLIT_FILES)}"
        )
    return list(dict.fromkeys(_leaves(config.task, index)))


def check_validation(config: BenchmarkConfig) -> None:
    """Raises RecipeError where a benchmark has no validation part apart from what is reported.

    HellaSwag and Winogrande are reported on theirs, and GSM8K has none.
    """
    for name in find_tasks(config):
        definition = _definition(name) or {}
        defined = definition.get("validation_split")
        # MMLU's definition names none, and its data set has one.
        is_there = defined is not None or _published_whole(name) is not None
        if config.data is not None:
            is_there = (defined or "validation") in _split_paths(Path(config.data))
        if not is_there or definition.get("test_split") in (None, defined):
            raise RecipeError(
                f"evaluate.benchmark {config.task!r} has no validation part apart from what it is "
                "reported on, so no checkpoint can be chosen by it; select by another, such as mmlu"
            )


def check_data(config: BenchmarkConfig) -> None:
    """Raises RecipeError where a benchmark's data was not fetched and cannot be now."""
    name = find_tasks(config)[0]
    if config.data is None and not _hub_answers():
        load_task(name, config)


def needs_log_probs(config: BenchmarkConfig) -> bool:
    """Whether any of its tasks is scored by log-probabilities, not by what is written."""
    definitions = [_definition(name) or {} for name in find_tasks(config)]
    return any(d.get("output_type") != "generate_until" for d in definitions)


def data_files(config: BenchmarkConfig) -> list[Path]:
    """The files that scores of local data depend on."""
    return list(_split_paths(Path(config.data)).values()) if config.data is not None else []


def load_task(name: str, config: BenchmarkConfig) -> Any:
    """One of lm_eval's tasks with its data, shots and seed set, ready to be evaluated."""
    load_harness()
    definition = _definition(name)
    if config.split == "validation" and definition is not None:
        definition["test_split"] = definition.get("validation_split") or "validation"
    if config.data is not None:
        task = _from_files(name, Path(config.data), definition)
    else:
        task = _from_hub(name, definition if config.split == "validation" else None)
    shots = num_fewshot(config)
    if shots is None:
        shots = task.get_config("num_fewshot") or 0
    task.set_config(key="num_fewshot", value=shots)
    # lm_eval's own default: its command line draws the same shots.
    task.set_fewshot_seed(seed=1234)
    return task


def num_fewshot(config: BenchmarkConfig) -> int | None:
    """The recipe's number, else the published one, else None for the task's own."""
    if config.num_fewshot is not None:
        return config.num_fewshot
    published = PUBLISHED.get(config.task) or _published_whole(config.task)
    return published.num_fewshot if published else None


def metric_of(name: str, found: Mapping[str, object]) -> tuple[str, str]:
    """Metric and filter that a task is known by, of the keys `metric,filter` it reported."""
    published = PUBLISHED.get(name) or _published_whole(name)
    if published and f"{published.metric},{published.filter}" in found:
        return published.metric, published.filter
    reported = [key for key in found if "," in key and "_stderr" not in key]
    for wanted in ("acc_norm", "acc", "exact_match"):
        for key in reported:
            if key.split(",")[0] == wanted:
                return wanted, key.split(",", 1)[1]
    metric, _, filtered = reported[0].partition(",")
    return metric, filtered


def _published_whole(name: str) -> Setting | None:
    return PUBLISHED["mmlu"] if name.startswith("mmlu_") else None


@functools.lru_cache(maxsize=2)
def _manager(whole: bool) -> Any:
    """All of lm_eval's definitions, which takes seconds to read, or the published five's alone."""
    load_harness()
    tasks = importlib.import_module("lm_eval.tasks")
    if whole:
        return tasks.TaskManager()
    folder = Path(str(tasks.__file__)).parent
    return tasks.TaskManager(include_defaults=False, include_path=[folder / f for f in _FOLDERS])


def _manager_of(name: str) -> Any:
    published = _manager(whole=False)
    return published if name in published.task_index else _manager(whole=True)


def _index(name: str) -> Mapping[str, Any]:
    index: Mapping[str, Any] = _manager_of(name).task_index
    return index


def _near(name: str, index: Mapping[str, Any]) -> str:
    from rapidfuzz import process

    best = process.extractOne(name, list(index), score_cutoff=60)
    return f" (perhaps {best[0]!r})" if best else ""


def _leaves(name: str, index: Mapping[str, Any]) -> Iterator[str]:
    entry = index[name]
    if entry.kind.name == "TAG":
        for task in sorted(entry.tags):
            yield from _leaves(task, index)
    elif entry.kind.name == "GROUP":
        for member in entry.cfg["task"]:
            inner = member if isinstance(member, str) else member.get("task", member.get("group"))
            if not isinstance(inner, str) or inner not in index:
                raise RecipeError(
                    f"evaluate.benchmark: the group {name!r} is made of parts without a name of "
                    "their own; name its tasks one by one"
                )
            yield from _leaves(inner, index)
    else:
        yield name


def _definition(name: str) -> dict[str, Any] | None:
    """A task's own definition; None where it is written in Python."""
    entry = _index(name)[name]
    if entry.kind.name != "TASK":
        return None
    yaml = importlib.import_module("lm_eval.tasks._yaml_loader")
    definition = dict(yaml.load_yaml(entry.yaml_path, resolve_func=True))
    for key in ("tag", "group", "task_list"):
        definition.pop(key, None)
    return definition


def _from_hub(name: str, definition: dict[str, Any] | None) -> Any:
    try:
        with _offline_where_there_is_no_hub():
            if definition is not None:
                task_module = importlib.import_module("lm_eval.api.task")
                return task_module.ConfigurableTask(config=definition)
            return _manager_of(name).load([name])["tasks"][name]
    except (OSError, LookupError, ValueError, ImportError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise RecipeError(
            f"evaluate.benchmark {name!r}: its data cannot be had from the hub ({reason}); name a "
            "folder of local files as `data`"
        ) from error


@contextmanager
def _offline_where_there_is_no_hub() -> Iterator[None]:
    """What was fetched before is read at once: the hub's client asks six times, half a minute long,
    for each of a benchmark's tasks."""
    hub: Any = importlib.import_module("huggingface_hub.constants")
    datasets: Any = importlib.import_module("datasets.config")
    was = hub.HF_HUB_OFFLINE, datasets.HF_HUB_OFFLINE
    if not _hub_answers():
        hub.HF_HUB_OFFLINE = datasets.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE, datasets.HF_HUB_OFFLINE = was


@functools.lru_cache(maxsize=1)
def _hub_answers() -> bool:
    """Whether there is anybody; what they say does not matter."""
    hub: Any = importlib.import_module("huggingface_hub.constants")
    request = urllib.request.Request(hub.ENDPOINT, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=HUB_SECONDS):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False


def _from_files(name: str, folder: Path, definition: dict[str, Any] | None) -> Any:
    """The real definition over local files: splits that no file holds are taken out of it."""
    if definition is None:
        raise RecipeError(
            f"evaluate.benchmark {name!r} is written in Python and reads its own data; leave out "
            "its `data`"
        )
    task_module = importlib.import_module("lm_eval.api.task")
    splits = _read_splits(name, folder, definition.get("dataset_name"))
    wanted = definition.get("test_split") or definition.get("validation_split")
    for key in _SPLIT_KEYS:
        if definition.get(key) is not None and definition[key] not in splits:
            definition[key] = None
    if wanted not in splits:
        raise RecipeError(
            f"evaluate.benchmark {name!r}: {folder} has no rows for it in {wanted}.jsonl, which it "
            "is scored on"
        )
    definition |= {"dataset_path": str(folder), "custom_dataset": lambda **_: splits}
    try:
        return task_module.ConfigurableTask(config=definition)
    except (LookupError, ValueError, TypeError, AttributeError, TemplateError) as error:
        raise RecipeError(
            f"evaluate.benchmark {name!r}: the rows in {folder} have not the columns of the task's "
            f"data set ({type(error).__name__}: {error})"
        ) from error


def _split_paths(folder: Path) -> dict[str, Path]:
    paths = {name: folder / f"{name}.jsonl" for name in SPLIT_FILES}
    return {name: path for name, path in paths.items() if path.is_file()}


def _read_splits(name: str, folder: Path, subject: str | None) -> Any:
    datasets = importlib.import_module("datasets")
    splits = {}
    for split, path in _split_paths(folder).items():
        rows = _read_rows(path)
        if rows and "subject" in rows[0] and subject is not None:
            rows = [row for row in rows if row["subject"] == subject]
        if rows:
            splits[split] = datasets.Dataset.from_list(rows)
    return datasets.DatasetDict(splits)


@functools.lru_cache(maxsize=8)
def _read_rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError:
                raise RecipeError(f"{path}:{number}: not JSON; write one object a line") from None
    return rows
