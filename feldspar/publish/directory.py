"""A run's result as a Hugging Face directory: weights, tokenizer, card, checksums.

Before anything is called published, plain transformers loads the directory and must give the same
greedy text as our own sampler.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from feldspar.config import Recipe
from feldspar.errors import RunError
from feldspar.files import whole_folder
from feldspar.publish.adapter import FOLDER as ADAPTER
from feldspar.publish.adapter import write_adapter
from feldspar.publish.base_facts import dtype_of
from feldspar.publish.card import Extras, card_front, model_card, name_of, published_scores
from feldspar.publish.chain import Chain, runs_behind
from feldspar.publish.data_card import data_card
from feldspar.publish.gguf import GgufFile, Tools, write_gguf
from feldspar.publish.licence import Licence, find_licence, licence_of_base
from feldspar.publish.machine_files import write_citation, write_eval_results, write_recipe
from feldspar.publish.modelfile import NoModelfile, modelfile_of
from feldspar.records import Message, PairedShares, Sample
from feldspar.runs import open_step, read_recipe_of, result_of
from feldspar.stored import damaged
from feldspar.student.inference.sample import sample_answers
from feldspar.student.model import digest_checkpoint, load_student, save_checkpoint

log = logging.getLogger(__name__)

CHECKSUMS = "CHECKSUMS.sha256"
NUM_CHECKED_PROMPTS = 3
CHECKED_TOKENS = 32


class GgufOrder(NamedTuple):
    """Which GGUF files are wanted, what makes them, and what puts the run's exams to each."""

    types: Sequence[str]
    tools: Tools
    measure: Callable[[GgufFile], list[PairedShares]] | None = None


def publish_run(
    run_path: Path,
    out: Path,
    *,
    order: GgufOrder | None = None,
    changes: Sequence[PairedShares] = (),
    adapter: bool = False,
) -> list[GgufFile]:
    """Write the published directory, whole or not at all; gives the GGUF files that are in it.

    `changes`, from the base to the result, are for the card; `adapter`: with the un-merged LoRA
    adapter in a folder of its own. Raises RunError when there is no
    result, when `out` is not ours to replace, or when plain transformers does not say what our
    sampler says.
    """
    recipe, checkpoint = read_recipe_of(run_path), result_of(run_path)
    if out.exists() and not (out / CHECKSUMS).is_file():
        raise RunError(f"{out} exists and was not published by feldspar; name another --out")
    chain = runs_behind(run_path)
    licence = _licence_of(chain, recipe)
    check_json(Path(checkpoint.path))
    if digest_checkpoint(Path(checkpoint.path)) != checkpoint.digest:
        raise damaged(Path(checkpoint.path), "the checkpoint's content was changed")
    student = load_student(checkpoint.path, recipe.student)
    dtype = published_dtype(recipe, chain.base)
    student.model.to(getattr(torch, dtype))
    with whole_folder(out) as beside:
        save_checkpoint(
            student,
            beside,
            phase=checkpoint.phase,
            step=checkpoint.step,
            max_shard_mb=recipe.publish.max_shard_mb,
        )
        check_with_transformers(beside, recipe, _prompts(run_path))
        if adapter:
            write_adapter(chain, Path(checkpoint.path), beside / ADAPTER)
        files = []
        if order is not None:
            _write_front(beside, card_front(chain, recipe, licence, has_gguf=True))
            files = write_gguf(beside, run_path.name, order.types, order.tools)
        measure = order.measure if order else None
        extras = Extras(
            dtype=dtype,
            recipe_digest=write_recipe(beside, recipe, name_of(chain.base)),
            changes=changes,
            files=[(file, measure(file) if measure else []) for file in files],
            has_adapter=adapter,
            modelfiles=[name for file in files if (name := write_modelfile(file, beside))],
        )
        card = model_card(chain, recipe, checkpoint, licence, extras)
        (beside / "README.md").write_text(card, encoding="utf-8")
        (beside / "DATA.md").write_text(data_card(chain, recipe.name), encoding="utf-8")
        write_eval_results(beside, published_scores(run_path, checkpoint), checkpoint.phase)
        write_citation(beside, recipe, checkpoint, chain.leaves())
        for path in _files_of(beside):
            path.chmod(0o644)
        write_checksums(beside)
    return [file._replace(path=out / file.path.name) for file in files]


def _write_front(folder: Path, front: str) -> None:
    """What llama.cpp's converter reads licence and base from: the card says what the files cost, so
    it is written after them."""
    (folder / "README.md").write_text(f"---\n{front}\n---\n", encoding="utf-8")


def write_modelfile(file: GgufFile, folder: Path) -> str:
    """Write what Ollama is told of a file; gives its name, or says why there is none."""
    try:
        text = modelfile_of(file.path, folder).text()
    except NoModelfile as error:
        log.warning("no Modelfile for %s: %s", file.path.name, error)
        return ""
    path = file.path.with_suffix(".Modelfile")
    path.write_text(text, encoding="utf-8")
    return path.name


def check_json(folder: Path) -> None:
    """Raise RunError where a JSON file of a model's folder was cut or is none."""
    for path in sorted(folder.glob("*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise damaged(path, f"it is no JSON ({error})") from error


def _licence_of(chain: Chain, recipe: Recipe) -> Licence:
    """The result's, each warning said."""
    of_leaves = (leaf.licence for leaf in chain.leaves())
    licence = find_licence(recipe.publish.licence, licence_of_base(chain.base), of_leaves)
    licence.warnings.extend(
        f"{run} is gone, which this result was made from: the licences of its data are not listed"
        for run in chain.missing
    )
    for warning in licence.warnings:
        log.warning("licence: %s", warning)
    return licence


def published_dtype(recipe: Recipe, base: str) -> str:
    """Of the published weights: as the recipe says, or the precision of the model that all began
    from."""
    if recipe.publish.dtype != "base":
        return recipe.publish.dtype
    of_base = dtype_of(base)
    if of_base is None:
        log.warning(
            "%s does not say its precision, or is gone: the weights are written in float32; "
            "publish.dtype names another",
            base,
        )
    return of_base or "float32"


def write_checksums(folder: Path) -> None:
    """List the sha256 of every file beside the list, in the form that `sha256sum -c` reads."""
    lines = [f"{_sha256(p)}  {p.relative_to(folder).as_posix()}\n" for p in _files_of(folder)]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def _files_of(folder: Path) -> list[Path]:
    """All but the list of checksums."""
    listed = folder / CHECKSUMS
    return [path for path in sorted(folder.rglob("*")) if path.is_file() and path != listed]


def check_with_transformers(path: Path, recipe: Recipe, prompts: list[str]) -> None:
    """Compare greedy answers of plain transformers with ours, both computed in float32 whatever the
    weights are stored in; raises RunError where they differ."""
    conversations = [[Message(role="user", content=prompt)] for prompt in prompts]
    student = load_student(str(path), recipe.student.model_copy(update={"dtype": "float32"}))
    ours = sample_answers(
        student,
        conversations,
        keys=prompts,
        max_new_tokens=CHECKED_TOKENS,
        seed=0,
    )
    plain = _plain_answers(path, recipe.student.system_prompt, prompts)
    for prompt, [answer], theirs in zip(prompts, ours, plain, strict=True):
        if theirs.strip() != answer.text.strip():
            raise RunError(
                f"{path}: plain transformers answers {theirs!r} to {prompt!r}, "
                f"our sampler {answer.text!r}; not published"
            )


def _plain_answers(path: Path, system_prompt: str, prompts: list[str]) -> list[str]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(path)
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    answers = []
    for prompt in prompts:
        turns = [{"role": "user", "content": prompt}]
        if system_prompt:
            turns.insert(0, {"role": "system", "content": system_prompt})
        inputs = tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, max_new_tokens=CHECKED_TOKENS, do_sample=False)
        new = output[0, inputs["input_ids"].shape[1] :]
        answers.append(str(tokenizer.decode(new, skip_special_tokens=True)))
    return answers


def _prompts(run_path: Path) -> list[str]:
    """A few of the run's own questions, or plain ones where it has no samples."""
    rows = open_step(run_path, "samples")
    questions: list[str] = []
    for sample in rows or ():
        assert isinstance(sample, Sample)
        if sample.is_kept and sample.context is None and sample.kind != "document":
            questions.append(sample.question)
        if len(questions) == NUM_CHECKED_PROMPTS:
            break
    return questions or ["What can you tell me?"]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
