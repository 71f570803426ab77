"""Prompts: Jinja files with a typed front matter, in prompts/ or in the recipe's own folder.

prompts/README.md tells the stages, the sections of a message, and the forms of the replies.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import jinja2
import jinja2.meta
import jinja2.sandbox
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from feldspar.config import GenerateConfig
from feldspar.errors import RecipeError
from feldspar.files import files_below
from feldspar.generate.quoting import quote_sections
from feldspar.generate.stages import PROMPT_SUFFIX, STAGES, StageName
from feldspar.records import Message, Seed

VARIABLES = frozenset(
    (
        *("task", "domain", "document", "context", "question", "answer", "examples", "count"),
        *("persona", "choices", "statements"),
    )
)

_FRONT_MATTER = re.compile(r"\A---\n(.*?\n)---\n", re.DOTALL)

T = TypeVar("T")
Value = str | int | tuple[Seed, ...] | tuple[str, ...] | None


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["teacher", "judge"]
    stage: StageName
    variables: tuple[str, ...]


class _Prompt(NamedTuple):
    place: str
    variables: tuple[str, ...]
    template: jinja2.Template


class Prompts:
    """Every stage's prompt, those in the first of `folders` before the others' and the package's.

    Raises RecipeError where a file cannot be read or names what no stage has.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._of_leaves: dict[tuple[Path, ...], Prompts] = {}
        # Templates come from a recipe's folder, so they are sandboxed; values come from documents
        # and models, so every one that is put into a prompt is quoted.
        self._environment = jinja2.sandbox.SandboxedEnvironment(
            loader=jinja2.FunctionLoader(self._read_body),
            undefined=jinja2.StrictUndefined,
            finalize=_finalize,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._prompts = {stage: self._load(stage) for stage in STAGES}

    def of_leaf(self, path: str) -> Prompts:
        """The prompts for a leaf: a folder `knowledge/science` within the recipe's own is for all
        leaves below that, and the deepest one counts."""
        if not self._folders:
            return self
        *_, root = self._folders
        places = [root.joinpath(*path.split("/")[:n]) for n in range(path.count("/") + 1, 0, -1)]
        folders = (*(place for place in places if place.is_dir()), root)
        if folders == self._folders:
            return self
        if folders not in self._of_leaves:
            self._of_leaves[folders] = Prompts(*folders)
        return self._of_leaves[folders]

    def render(self, stage: StageName, **values: Value) -> tuple[Message, ...]:
        """The messages that a stage sends."""
        prompt = self._prompts[stage]
        wanted = {name: values.get(name) for name in prompt.variables}
        text = _mended(prompt.place, lambda: prompt.template.render(wanted))
        return (Message(role="user", content=text.strip()),)

    def _load(self, stage: StageName) -> _Prompt:
        place, text = self._find(stage + PROMPT_SUFFIX)
        match = _FRONT_MATTER.match(text)
        if match is None:
            raise RecipeError(f"{place}: no front matter; begin with role, stage, and variables")
        try:
            header = _Header.model_validate(yaml.safe_load(match[1]))
        except (ValidationError, yaml.YAMLError) as error:
            fault = " ".join(str(error).split())
            raise RecipeError(f"{place}: the front matter cannot be read: {fault}") from None
        if header.stage != stage:
            raise RecipeError(f"{place}: this file is for the stage {stage}, not {header.stage}")
        body = text[match.end() :]
        used = _mended(
            place, lambda: jinja2.meta.find_undeclared_variables(self._environment.parse(body))
        )
        for name in sorted(used - set(header.variables)):
            raise RecipeError(f"{place}: {name!r} is used; add it to `variables`")
        for name in sorted(set(header.variables) - VARIABLES):
            raise RecipeError(
                f"{place}: there is no variable {name!r}; there are: {', '.join(sorted(VARIABLES))}"
            )
        template = _mended(place, lambda: self._environment.get_template(stage + PROMPT_SUFFIX))
        return _Prompt(place, header.variables, template)

    def _read_body(self, name: str) -> str:
        return _FRONT_MATTER.sub("", self._find(name)[1])

    def _find(self, name: str) -> tuple[str, str]:
        """Place and text of a file, the recipe's own first."""
        for path in (folder / name for folder in self._folders):
            if path.is_file():
                return str(path), path.read_text(encoding="utf-8-sig")
        try:
            return name, (resources.files(__package__) / "prompts" / name).read_text("utf-8")
        except FileNotFoundError:
            raise jinja2.TemplateNotFound(name) from None


def read_prompts(config: GenerateConfig) -> Prompts:
    """The prompts of a recipe. Raises RecipeError where one cannot be used."""
    folder = Path(config.prompts) if config.prompts else None
    if folder is not None and not folder.is_dir():
        raise RecipeError(f"{folder}: no such folder of prompts; mend `generate.prompts`")
    known = {stage + PROMPT_SUFFIX for stage in STAGES}
    for path in files_below(folder, PROMPT_SUFFIX) if folder else []:
        if path.name not in known and not path.name.startswith("_"):
            raise RecipeError(f"{path}: no stage of this name; there are: {', '.join(STAGES)}")
    return Prompts(folder) if folder else package_prompts()


@cache
def package_prompts() -> Prompts:
    """The package's own prompts, compiled once per process."""
    return Prompts()


def asking_files(config: GenerateConfig) -> dict[str, Path]:
    """The files that decide what is asked, by name: part of the key of the steps that ask."""
    folders = {"package": Path(str(resources.files(__package__) / "prompts"))}
    if config.prompts:
        folders["own"] = Path(config.prompts)
    prompts = {
        f"{whose}/{path.relative_to(folder).as_posix()}": path
        for whose, folder in folders.items()
        for path in files_below(folder, PROMPT_SUFFIX)
    }
    pipelines: dict[str, Path] = {}
    for number, one in enumerate(config.pipeline):
        name = f"pipeline {one.function}"
        # Two files may have a function of one name.
        pipelines[f"{name} {number}" if name in pipelines else name] = Path(one.file)
    return prompts | pipelines


def _finalize(value: object) -> object:
    return quote_sections(value) if isinstance(value, str) else value


def _mended(place: str, work: Callable[[], T]) -> T:
    try:
        return work()
    except jinja2.TemplateError as error:
        raise RecipeError(f"{place}: this prompt cannot be used: {error}") from error
