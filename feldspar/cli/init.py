"""`feldspar init`: a project to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from feldspar.cli.shipped import copy_recipe
from feldspar.cli.terminal import quoted
from feldspar.errors import RecipeError
from feldspar.files import is_utf8, write_texts_together
from feldspar.text.printable import on_one_line

BASE = "ibm-granite/granite-3.3-2b-base"

RECIPE = """\
# Teach a model what is in taxonomy/. `feldspar plan recipe.toml` says what it will cost,
# `feldspar run recipe.toml` does it and goes on after anything. Every key: docs/recipe.md.

[taxonomy]
path = "taxonomy"

[teacher]
# Any OpenAI-compatible server. Its key is read from the environment variable OPENAI_API_KEY.
# "embedded" needs no server: it copies from your documents, for trying, not for quality.
endpoint = "embedded"
# endpoint = "http://localhost:8000/v1"

[student]
# A model folder in Hugging Face format, or a hub id.
base = {base}

# General rows in `messages` layout (JSONL), so that what the base knows is not washed out.
# [mix.base_replay]
# source = "general.jsonl"
# share = 0.25

[train]
# The paper: 2e-5 and 3,840 samples a step, on 1.2 million samples. These are for hundreds.
learning_rate = 2e-5
batch_samples = 32
warmup_steps = 10

# The cards' phases: knowledge short, then long, then skills, each replaying what came before.
[[train.phase]]
name = "knowledge-short"
branches = ["knowledge"]
length = "short"
num_epochs = 4

[[train.phase]]
name = "knowledge-long"
branches = ["knowledge"]
length = "long"
num_epochs = 4
replay = [{{ phase = "knowledge-short", fraction = 1.0 }}]

[[train.phase]]
name = "skills"
branches = ["foundational", "compositional"]
num_epochs = 4
replay = [
  {{ phase = "knowledge-short", fraction = 1.0 }},
  {{ phase = "knowledge-long", fraction = 1.0 }},
]
"""

KNOWLEDGE = """\
version: 3
created_by: you
domain: geology
task_description: Teach the model about labradorite and its play of colour.
seed_examples:
  - context: |
      Labradorite shows a play of colour called labradorescence. Light is scattered between thin
      layers inside the stone, which are 50 to 200 nanometres thick.
    questions_and_answers:
      - question: What is the play of colour in labradorite called?
        answer: It is called labradorescence.
      - question: How thick are the layers inside labradorite?
        answer: They are 50 to 200 nanometres thick.
      - question: What causes labradorescence?
        answer: Light that is scattered between thin layers inside the stone.
  - context: |
      Labradorite is found in basalt, gabbro and anorthosite. Well-known places are Finland, whose
      stones are traded as spectrolite, Madagascar, and the isle of Paul near Nain in Canada.
    questions_and_answers:
      - question: In which rocks is labradorite found?
        answer: It is found in basalt, gabbro and anorthosite.
      - question: What are Finnish labradorites traded as?
        answer: They are traded as spectrolite.
      - question: Where in Canada is a well-known place for labradorite?
        answer: The isle of Paul near Nain.
document:
  path: documents
  patterns: ["*.md"]
"""

SKILL = """\
version: 3
created_by: you
task_description: Write a label for a mineral in a collection, in one sentence.
seed_examples:
  - question: Write a label for a piece of quartz from Brazil.
    answer: Quartz, Brazil, a hard and clear crystal of silicon dioxide.
  - question: Write a label for a piece of mica from Norway.
    answer: Mica, Norway, a soft mineral that splits into thin and shining sheets.
  - question: Write a label for a piece of pyrite from Spain.
    answer: Pyrite, Spain, a brassy iron sulphide that is often mistaken for gold.
  - question: Write a label for a piece of calcite from Iceland.
    answer: Calcite, Iceland, a clear crystal that shows everything behind it twice.
  - question: Write a label for a piece of malachite from the Congo.
    answer: Malachite, Congo, a green and banded carbonate of copper.
"""

DOCUMENT = """\
# Labradorite

Labradorite is a feldspar mineral, first described from the coast of Labrador in Canada in 1780.

## Play of colour

Labradorite shows a play of colour called labradorescence. Light is scattered between thin layers
inside the stone, which are 50 to 200 nanometres thick. The thickness of the layers decides the
colour that is seen: thin ones give blue, thicker ones give green, yellow and red.

## Where it is found

Labradorite is found in basalt, gabbro and anorthosite. Well-known places are Finland, whose stones
are traded as spectrolite, Madagascar, and the isle of Paul near Nain in Canada.
"""

ATTRIBUTION = """\
Title of work: {title}
License of the work: CC0-1.0
Creator names: you
"""


def init(
    folder: Annotated[
        Path, typer.Argument(help="The project's folder; made if it is not there.")
    ] = Path(),
    base: Annotated[
        str, typer.Option(help="The base model: a model folder, a hub id, or a GGUF file.")
    ] = BASE,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Write a recipe that comes with Feldspar, and it alone."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Write a project to start from: recipe.toml, an example taxonomy, .gitignore."""
    if recipe is None:
        files = _write_project(folder, base)
        next_steps = [
            f"taxonomy check {quoted(folder / 'taxonomy')}",
            f"plan {quoted(folder / 'recipe.toml')}",
        ]
    else:
        if base != BASE:
            raise RecipeError("--base is for a new project; a recipe names its own: leave one out")
        files = copy_recipe(recipe, folder).written
        next_steps = [f"plan {quoted(folder / f'{recipe}.toml')}"]
    if as_json:
        typer.echo(json.dumps({"files": [str(path) for path in files]}, indent=1))
        return
    for path in files:
        typer.echo(on_one_line(str(path)))
    for begin, step in zip(("next: ", "      "), next_steps, strict=False):
        typer.echo(on_one_line(f"{begin}feldspar {step}"))


def _write_project(folder: Path, base: str) -> list[Path]:
    knowledge = folder / "taxonomy" / "knowledge" / "science" / "geology" / "labradorite"
    skill = folder / "taxonomy" / "compositional_skills" / "writing" / "labels" / "minerals"
    if not is_utf8(folder.absolute()):
        raise RecipeError(f"{folder.absolute()}: the name is not UTF-8; name another folder")
    files = {
        folder / "recipe.toml": RECIPE.format(base=_toml_string(base, "--base")),
        folder / ".gitignore": ".feldspar/\nruns/\n",
        knowledge / "qna.yaml": KNOWLEDGE,
        knowledge / "attribution.txt": ATTRIBUTION.format(title="Labradorite"),
        knowledge / "documents" / "labradorite.md": DOCUMENT,
        skill / "qna.yaml": SKILL,
        skill / "attribution.txt": ATTRIBUTION.format(title="Labels for minerals"),
    }
    for path in files:
        if path.exists():
            raise RecipeError(f"{path} is there already; name a new folder")
    write_texts_together(files)
    return list(files)


def _toml_string(text: str, option: str) -> str:
    """The text as a TOML string, backslashes of Windows and all.

    Raises RecipeError where it is no text.
    """
    if not is_utf8(text):
        raise RecipeError(f"{option} {text}: not UTF-8; give it another name")
    # JSON escapes all that TOML wants escaped, but for one.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", r"\u007f")
