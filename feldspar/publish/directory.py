"""A run's result as a Hugging Face directory: weights, tokenizer, card, checksums.

Before anything is called published, plain transformers loads the directory and must give the same
greedy text as our own sampler.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import torch

from feldspar.config import Recipe
from feldspar.errors import RunError
from feldspar.files import whole_folder
from feldspar.publish.base_facts import dtype_of
from feldspar.publish.card import model_card
from feldspar.publish.chain import runs_behind
from feldspar.publish.data_card import data_card
from feldspar.publish.licence import find_licence, licence_of_base
from feldspar.records import Message, Sample
from feldspar.runs import open_step, read_recipe_of, result_of
from feldspar.stored import damaged
from feldspar.student.inference.sample import sample_answers
from feldspar.student.model import digest_checkpoint, load_student, save_checkpoint

log = logging.getLogger(__name__)

NUM_CHECKED_PROMPTS = 3
CHECKED_TOKENS = 32


def publish_run(run_path: Path, out: Path) -> Path:
    """Write the published directory, whole or not at all; gives `out`.

    Raises RunError when there is no result, when `out` is not ours to replace, or when plain
    transformers does not say what our sampler says.
    """
    recipe, checkpoint = read_recipe_of(run_path), result_of(run_path)
    if out.exists() and not (out / "CHECKSUMS.sha256").is_file():
        raise RunError(f"{out} exists and was not published by feldspar; name another --out")
    chain = runs_behind(run_path)
    of_leaves = (leaf.licence for leaf in chain.leaves())
    licence = find_licence(recipe.publish.licence, licence_of_base(chain.base), of_leaves)
    licence.warnings.extend(
        f"{run} is gone, which this result was made from: the licences of its data are not listed"
        for run in chain.missing
    )
    for warning in licence.warnings:
        log.warning("licence: %s", warning)
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
        card = model_card(chain, recipe, checkpoint, licence, dtype=dtype)
        (beside / "README.md").write_text(card, encoding="utf-8")
        (beside / "DATA.md").write_text(data_card(chain, recipe.name), encoding="utf-8")
        for path in beside.iterdir():
            path.chmod(0o644)
        write_checksums(beside)
    return out


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
    listed = folder / "CHECKSUMS.sha256"
    files = (path for path in sorted(folder.iterdir()) if path != listed)
    listed.write_text("".join(f"{_sha256(p)}  {p.name}\n" for p in files), encoding="utf-8")


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
