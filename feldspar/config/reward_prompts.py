"""What a recipe may say about the prompts that the reward pair reads before a question."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from feldspar.config.base import Part

_SHIPPED = Path(__file__).parents[1] / "prefer" / "domain_prompts"
DEFAULT_DOMAIN = "default"
"""Of prompts that no domain is for, where there is a text for them."""


class RewardExampleConfig(Part):
    """A question of the domain with a good answer, read as turns before the question itself."""

    question: Annotated[str, Field(min_length=1)]
    """What a user asks."""
    answer: Annotated[str, Field(min_length=1)]
    """A good answer to it."""


class RewardDomainConfig(Part):
    """What counts in the answers of a part of the taxonomy."""

    path: Annotated[str, Field(min_length=1)]
    """A branch, folder or leaf: `knowledge`, `foundational_skills/arithmetic`. The longest match
    wins."""
    text: str = ""
    """What the pair is told. Left out: the text that comes with Feldspar for the path's branch,
    which is then part of the recipe. `""`: nothing, so that a part of a domain is exempt from
    it."""
    examples: tuple[RewardExampleConfig, ...] = ()
    """Questions with good answers, in the order in which they are read."""

    @model_validator(mode="before")
    @classmethod
    def _text_is_of_the_branch(cls, given: object) -> object:
        """The shipped text goes into the recipe: it decides rewards, and so the step's key."""
        if not isinstance(given, dict) or not isinstance(given.get("path"), str):
            return given
        path = unicodedata.normalize("NFC", given["path"].strip("/"))
        if "text" in given:
            return {**given, "path": path}
        shipped = {file.stem: file for file in sorted(_SHIPPED.glob("*.md"))}
        branch = path.partition("/")[0]
        if branch not in shipped:
            raise ValueError(
                f"{path!r} lies in none of the branches {', '.join(shipped)}, which have a text of "
                "their own; mend `path`, or write `text`"
            )
        text = " ".join(shipped[branch].read_text(encoding="utf-8").split())
        return {**given, "path": path, "text": text}


class RewardPromptsConfig(Part):
    """What both models of the reward pair read before a question, by its leaf."""

    turn: Literal["system", "user"] = "system"
    """Where a text stands: in a system turn, or before the first question in the user's turn, for
    chat templates without a system turn."""
    default: str = ""
    """Text for questions that no domain is for. Empty: none."""
    domain: tuple[RewardDomainConfig, ...] = ()
    """Parts of the taxonomy with a text or examples of their own."""

    @model_validator(mode="after")
    def _domains_are_told_apart(self) -> RewardPromptsConfig:
        if not self.default and not self.domain:
            raise ValueError("prefer.reward_prompts says nothing: give a `domain` or a `default`")
        paths = [domain.path for domain in self.domain]
        twice = next((path for path in paths if paths.count(path) > 1), None)
        if twice is not None:
            raise ValueError(f"two [[prefer.reward_prompts.domain]] tables have the path {twice!r}")
        return self

    def domain_of(self, leaf: str) -> RewardDomainConfig | None:
        """The deepest domain that a leaf, by its path, lies in."""
        folders = unicodedata.normalize("NFC", leaf).split("/")
        by_path = {domain.path: domain for domain in self.domain}
        places = ("/".join(folders[:depth]) for depth in range(len(folders), 0, -1))
        return next((by_path[place] for place in places if place in by_path), None)
