"""`feldspar init`: a project to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from feldspar.errors import RecipeError

RECIPE = """\
# Teach a model what is in taxonomy/. `feldspar plan recipe.toml` says what it will cost,
# `feldspar run recipe.toml` does it and goes on after anything.

[taxonomy]
path = "taxonomy"

[teacher]
# Any OpenAI-compatible server. Its key is read from the environment variable OPENAI_API_KEY.
# "embedded" needs no server: it copies from your documents, for trying, not for quality.
endpoint = "embedded"
# endpoint = "http://localhost:8000/v1"

[student]
# A model folder in Hugging Face format, or a hub id.
base = "{base}"

[mix.base_replay]
# General rows in `messages` layout, so that what the base knows is not washed out.
# source = "base-replay.jsonl"
# share = 0.25
"""

LEAF = """\
version: 3
created_by: you
domain: geology
task_description: Teach the model what labradorescence is.
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
document:
  path: documents
  patterns: ["*.md"]
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
Title of work: Labradorite
License of the work: CC0-1.0
Creator names: you
"""


def init(
    folder: Annotated[Path, typer.Argument(help="The project's folder; made if it is not there.")],
    base: Annotated[
        str, typer.Option(help="The base model: a folder in Hugging Face format, or a hub id.")
    ] = "ibm-granite/granite-3.3-2b-base",
) -> None:
    """Write a project to start from: recipe.toml, an example taxonomy, .gitignore."""
    leaf = folder / "taxonomy" / "knowledge" / "science" / "geology" / "labradorite"
    files = {
        folder / "recipe.toml": RECIPE.format(base=base),
        folder / ".gitignore": ".feldspar/\nruns/\n",
        leaf / "qna.yaml": LEAF,
        leaf / "attribution.txt": ATTRIBUTION,
        leaf / "documents" / "labradorite.md": DOCUMENT,
    }
    for path in files:
        if path.exists():
            raise RecipeError(f"{path} is there already; name a new folder")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        typer.echo(path)
    typer.echo(f"next: feldspar taxonomy check {folder / 'taxonomy'}")
    typer.echo(f"      feldspar plan {folder / 'recipe.toml'}")
