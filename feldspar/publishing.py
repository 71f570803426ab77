"""A run's result given on: published, converted for llama.cpp, and the run's exams put to each
file, so that the card says what quantisation cost."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from feldspar.config import Recipe, TeacherConfig
from feldspar.evaluate.paired_shares import form_changes, result_changes
from feldspar.progress import SILENT, Progress
from feldspar.publish.gguf import GgufFile, find_tools
from feldspar.publish.llama_server import SLOTS, find_command
from feldspar.records import PairedShares
from feldspar.runs import cache_folder, open_step, read_recipe_of

log = logging.getLogger(__name__)


def publish_result(
    run_path: Path,
    out: Path,
    *,
    types: Sequence[str] = (),
    adapter: bool = False,
    progress: Progress = SILENT,
) -> list[GgufFile]:
    """Write the published directory, with a GGUF file for each of `types` and, where it is wanted,
    the un-merged LoRA adapter; gives the GGUF files.

    Whole or not at all. Raises RunError where there is no result, `out` is not ours to replace, a
    tool is missing, or a file does not answer.
    """
    from feldspar.publish.directory import GgufOrder, publish_run

    order = None
    if types:
        tools = find_tools(types)
        order = GgufOrder(types, tools, _measuring(read_recipe_of(run_path), run_path, progress))
    changes = result_changes(run_path) if open_step(run_path, "scores") else []
    return publish_run(run_path, out, order=order, changes=changes, adapter=adapter)


def _measuring(
    recipe: Recipe, run_path: Path, progress: Progress
) -> Callable[[GgufFile], list[PairedShares]] | None:
    """What puts the run's exams to a file; None where there is nothing to ask, or to ask with."""
    if open_step(run_path, "scores") is None:
        log.warning("%s is not scored: what quantisation costs is not measured", run_path)
        return None
    named = recipe.publish.gguf_server
    command = find_command() if named == "auto" else named
    if command is None:
        log.warning(
            "no llama-server and no xllamacpp here: what quantisation costs is not measured; "
            "`pip install xllamacpp` (33 MB), or name a command in publish.gguf_server"
        )
    if not command:
        return None
    return lambda file: _measure(recipe, run_path, file, command, progress)


def _measure(
    recipe: Recipe, run_path: Path, file: GgufFile, command: str, progress: Progress
) -> list[PairedShares]:
    from feldspar.evaluate.served_examinee import ServedExaminee
    from feldspar.prepare import open_server

    server = TeacherConfig(command=command, model=str(file.path), concurrency=SLOTS)
    evaluate = recipe.evaluate.model_copy(update={"server": server})
    asking = recipe.model_copy(update={"evaluate": evaluate})
    with open_server(asking, progress, run_path / "teachers.json") as served:
        form = ServedExaminee(served, file.path.name)
        return form_changes(
            run_path, form, cache_path=cache_folder() / "general", progress=progress
        )
