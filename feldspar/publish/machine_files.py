"""What stands beside a model's card for machines: its front matter, scores as the hub shows them,
a citation, and the recipe. Written by huggingface_hub's own classes where it has them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

from feldspar.config import Recipe
from feldspar.keys import content_key, content_of
from feldspar.publish.licence import Licence
from feldspar.records import Checkpoint, Leaf, Score
from feldspar.text.licence_names import hub_names

RECIPE_FILE = "recipe.json"
CITATION_FILE = "CITATION.cff"
EVAL_FOLDER = ".eval_results"


class HubTask(NamedTuple):
    """Where a benchmark's data set is on the hub, and what the hub calls its task."""

    data_set: str
    task: str


_HUB_TASKS = {
    "mmlu": HubTask("cais/mmlu", "mmlu"),
    "arc_challenge": HubTask("allenai/ai2_arc", "ARC-Challenge"),
    "hellaswag": HubTask("Rowan/hellaswag", "hellaswag"),
    "winogrande": HubTask("allenai/winogrande", "winogrande"),
    "gsm8k": HubTask("openai/gsm8k", "gsm8k"),
}
"""By lm_eval's name. The run's own exams have no data set on the hub: the card alone has them."""


_OTHER_ITEMS = ("first ", "validation part", "data of ")
"""In a score's settings: it is not of all the published items."""


def front_matter(licence: Licence, *, base_model: str, has_gguf: bool) -> str:
    """The YAML before a model card's text, without its fences."""
    from huggingface_hub import ModelCardData

    name = hub_names([licence.name])[0]
    is_named = name == "other" and licence.name != "other"
    fields = ModelCardData(
        base_model=base_model or None,
        base_model_relation="finetune" if base_model else None,
        library_name="transformers",
        license=name,
        license_name=licence.name if is_named else None,
        # The hub wants to know where to read it.
        license_link="README.md" if is_named else None,
        pipeline_tag="text-generation",
        tags=["LAB", "feldspar", *(["gguf"] if has_gguf else [])],
    )
    return fields.to_yaml().strip()


def write_eval_results(folder: Path, scores: Iterable[Score], checkpoint: str) -> list[Path]:
    """The result's scores on published benchmarks as `.eval_results/TASK.yaml`, each in the form
    that the hub shows on a model's page. Only whole benchmarks on the hub's own items: a first look
    is no score."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    written = []
    for score in scores:
        task = _HUB_TASKS.get(score.exam)
        is_part = any(words in score.settings for words in _OTHER_ITEMS)
        if task is None or score.checkpoint != checkpoint or is_part:
            continue
        entry = EvalResultEntry(
            dataset_id=task.data_set,
            task_id=task.task,
            value=round(100 * score.value, 2),
            notes=f"{score.metric} in %, {score.settings}; lm_eval, by Feldspar",
        )
        path = folder / EVAL_FOLDER / f"{score.exam}.yaml"
        path.parent.mkdir(exist_ok=True)
        rows = eval_result_entries_to_yaml([entry])
        path.write_text(yaml.safe_dump(rows, sort_keys=False, allow_unicode=True), encoding="utf-8")
        written.append(path)
    return written


def write_recipe(folder: Path, recipe: Recipe, base: str) -> str:
    """Write all of a recipe that decides results, without places of this machine; gives its digest.

    The digest is of what is written under `recipe`: sha256 of its JSON with sorted keys.
    """
    digest = content_key(recipe)
    written = {"digest": digest, "base": base, "recipe": content_of(recipe)}
    text = json.dumps(written, indent=1, ensure_ascii=False, sort_keys=True)
    (folder / RECIPE_FILE).write_text(text + "\n", encoding="utf-8")
    return digest


def write_citation(
    folder: Path, recipe: Recipe, checkpoint: Checkpoint, leaves: Sequence[Leaf]
) -> None:
    """Write CITATION.cff (format 1.2.0): the model by its digest, and the method's paper."""
    makers = recipe.publish.authors or sorted({leaf.created_by for leaf in leaves} - {""})
    authors = [{"name": name} for name in makers or [f"The authors of {recipe.name}"]]
    citation = {
        "cff-version": "1.2.0",
        "message": "If you use this model, please cite it and the method that made it.",
        "title": recipe.name,
        "type": "software",
        "authors": authors,
        "version": checkpoint.digest[:16],
        "keywords": ["language model", "LAB", "Feldspar"],
        "references": [_LAB],
    }
    text = yaml.safe_dump(citation, sort_keys=False, allow_unicode=True)
    (folder / CITATION_FILE).write_text(text, encoding="utf-8")


_LAB = {
    "type": "article",
    "title": "LAB: Large-Scale Alignment for ChatBots",
    "authors": [
        {"family-names": family, "given-names": given}
        for family, given in (
            ("Sudalairaj", "Shivchander"),
            ("Bhandwaldar", "Abhishek"),
            ("Pareja", "Aldo"),
            ("Xu", "Kai"),
            ("Cox", "David D."),
            ("Srivastava", "Akash"),
        )
    ],
    "year": 2024,
    "url": "https://arxiv.org/abs/2403.01081",
}
