"""Seeds that a recipe's teacher proposes: what asking costs, and what it said, for people to read.

Nothing is asked before someone clicks, and nothing that was proposed is in a form before someone
keeps it. Only teachers that a recipe of the project names by an address are asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from feldspar.config import TeacherConfig, read_recipe
from feldspar.errors import RecipeError, TaxonomyError
from feldspar.runs import cache_folder
from feldspar.studio.project import Project
from feldspar.taxonomy.documents.find import Document
from feldspar.taxonomy.draft import (
    NO_PROPOSAL,
    DraftVolume,
    draft_volume,
    propose_with_teacher,
)
from feldspar.taxonomy.writing import Pair

JOURNAL = "drafts.sqlite"
"""In the cache: what was proposed once is not paid for again."""


class DraftOffer(NamedTuple):
    """A teacher that could be asked, and what it would take at most."""

    recipe: str
    teacher: str
    volume: DraftVolume
    cost: float
    """At the recipe's prices; 0 where it names none."""


class LeafDrafts:
    """The teachers of a project's recipes, asked for seeds."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def offers(self, documents: Sequence[Document]) -> list[DraftOffer]:
        """One a teacher; none where no recipe names one by its address."""
        volume = draft_volume(documents)
        found: dict[str, DraftOffer] = {}
        for recipe in self._project.recipes():
            config = None if recipe.fault else self._teacher(recipe.path)
            if config is not None:
                cost = volume.prompt_tokens * config.prompt_price
                cost += volume.most_written * config.completion_price
                offer = DraftOffer(recipe.path, config.title, volume, cost / 1e6)
                found.setdefault(f"{config.endpoint} {config.model}", offer)
        return list(found.values())

    def propose(self, recipe: str, documents: Sequence[Document]) -> list[Pair]:
        """Ask a recipe's teacher. Call it in a thread.

        Raises TaxonomyError where it proposed nothing, TeacherError where it does not answer,
        RecipeError where the recipe names no teacher by an address.
        """
        config = self._teacher(recipe)
        if config is None:
            raise RecipeError(f"{recipe} names no teacher by its address: teacher.endpoint")
        if not any(document.text.strip() for document in documents):
            raise TaxonomyError("the leaf has no document to ask about; drop one into the page")
        journal_path = cache_folder() / JOURNAL
        journal_path.parent.mkdir(parents=True, exist_ok=True)
        pairs = asyncio.run(propose_with_teacher(documents, config, journal_path))
        if not pairs:
            raise TaxonomyError(NO_PROPOSAL)
        return pairs

    def _teacher(self, recipe: str) -> TeacherConfig | None:
        config = read_recipe(self._project.recipe_path(recipe)).teacher
        is_address = config.endpoint.startswith(("http://", "https://"))
        return config if is_address else None
