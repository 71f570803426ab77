"""Leaves written in a form: documents dropped, seeds beside their passages, findings as they are
typed, and the file as it will be saved."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import TypeVar

from aiohttp import web
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feldspar.errors import FeldsparError, TaxonomyError
from feldspar.studio.leaf_drafts import LeafDrafts
from feldspar.studio.leaf_files import (
    MAX_UPLOAD_BYTES,
    CheckedLeaf,
    LeafFiles,
    LeafPlace,
)
from feldspar.studio.shown import ShownPage
from feldspar.taxonomy.editing import FormExample, FormPair, LeafForm
from feldspar.taxonomy.text_files import READ_SUFFIXES
from feldspar.views.pages import render

T = TypeVar("T")
B = TypeVar("B", bound="_LeafBody")

MAX_LETTERS = 40_000
MAX_SHOWN_LETTERS = 400_000
"""Of a document's text as it was read."""
_UPLOAD_BODY_BYTES = MAX_UPLOAD_BYTES * 3 // 2
READ_ONLY = "this studio only reads"


class _LeafBody(BaseModel):
    """Which leaf a request is about."""

    model_config = ConfigDict(extra="forbid")
    taxonomy: str = Field(max_length=500)
    path: str = Field(max_length=500)


class PairBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    question: str = Field(max_length=MAX_LETTERS)
    answer: str = Field(max_length=MAX_LETTERS)
    old: int | None = Field(None, ge=0)


class ExampleBody(BaseModel):
    model_config = ConfigDict(extra="forbid")
    context: str = Field(max_length=MAX_LETTERS)
    pairs: list[PairBody] = Field(max_length=500)
    old: int | None = Field(None, ge=0)


class FormBody(_LeafBody):
    """A leaf as it stands in the form, and which file the form was made from."""

    created_by: str = Field("", max_length=200)
    domain: str = Field("", max_length=500)
    description: str = Field("", max_length=MAX_LETTERS)
    attribution: str | None = Field(None, max_length=MAX_LETTERS)
    """What attribution.txt is to say; None leaves it as it is."""
    examples: list[ExampleBody] = Field(max_length=1000)
    digest: str = Field(max_length=128)

    def form(self) -> LeafForm:
        return LeafForm(
            created_by=self.created_by,
            domain=self.domain,
            description=self.description,
            examples=tuple(
                FormExample(
                    context=e.context,
                    pairs=tuple(
                        FormPair(question=p.question, answer=p.answer, old=p.old) for p in e.pairs
                    ),
                    old=e.old,
                )
                for e in self.examples
            ),
        )


class DocumentBody(_LeafBody):
    """A dropped document, base64."""

    name: str = Field(max_length=500)
    content: str


class DraftBody(_LeafBody):
    """Which recipe's teacher is to propose seeds."""

    recipe: str = Field(max_length=500)


class LeafPages:
    """Handlers of one app."""

    def __init__(self, files: LeafFiles, drafts: LeafDrafts, author: str) -> None:
        """`author`: who new leaves say wrote them; empty where the studio only reads."""
        self._files, self._drafts, self._author = files, drafts, author

    def listing(self, _: web.Request) -> ShownPage:
        """All leaves of the project, and where a new one begins."""
        body = render(
            "taxonomy.html.j2", taxonomies=self._files.leaves(), can_edit=bool(self._author)
        )
        return ShownPage("Taxonomy", body)

    def page(self, request: web.Request) -> ShownPage:
        """A leaf's form."""
        asked = request.query
        place = self._files.place(asked.get("taxonomy", ""), asked.get("path", ""))
        text, fault = self._files.text(place), ""
        form, checked = LeafForm(), None
        try:
            form = self._files.form(place)
            checked = self._files.check(place, form)
        except TaxonomyError as error:
            fault = str(error)
        if text is None:
            form = dataclasses.replace(form, created_by=self._author)
        body = render(
            "leaf_edit.html.j2",
            place=place,
            form=form,
            fault=fault,
            text=text,
            attribution=(self._files.attribution(place) or "").strip(),
            digest=self._files.digest(place),
            documents=self._documents(place, checked) if checked else Markup(),
            suffixes=",".join(READ_SUFFIXES),
            can_edit=bool(self._author),
        )
        return ShownPage(place.path, body)

    async def check(self, request: web.Request) -> web.Response:
        """Findings by field, the diff, and which passages have a seed, as JSON."""
        return await self._answer(request, FormBody, self._check)

    async def save(self, request: web.Request) -> web.Response:
        """`{"digest": TEXT}`. Errors as text: 403 read-only, 409 it cannot be saved, 422."""
        return await self._answer(request, FormBody, self._save)

    async def document(self, request: web.Request) -> web.Response:
        """The leaf's documents with the new one, as HTML in JSON."""
        large = request.clone(client_max_size=_UPLOAD_BODY_BYTES)
        return await self._answer(large, DocumentBody, self._add)

    async def draft(self, request: web.Request) -> web.Response:
        """`{"drafts": [{"context", "question", "answer"}]}`: asks a recipe's teacher, which may
        cost. Errors as text: 403 read-only, 409 nothing came of it, 422."""
        return await self._answer(request, DraftBody, self._propose)

    def _check(self, asked: FormBody) -> dict[str, object]:
        place = self._files.place(asked.taxonomy, asked.path)
        checked = self._files.check(place, asked.form(), asked.attribution)
        findings = [
            {
                "field": field,
                "severity": found.severity,
                "code": found.code,
                "message": found.message,
                "cure": found.cure,
            }
            for field, found in checked.findings
        ]
        covered = [passage.chunk.id for passage in checked.passages if passage.is_covered]
        return {"findings": findings, "diff": checked.diff, "covered": covered}

    def _save(self, asked: FormBody) -> dict[str, object]:
        place = self._files.place(asked.taxonomy, asked.path)
        return {"digest": self._files.save(place, asked.form(), asked.digest, asked.attribution)}

    def _add(self, asked: DocumentBody) -> dict[str, object]:
        place = self._files.place(asked.taxonomy, asked.path)
        self._files.add_document(place, asked.name, asked.content)
        checked = self._files.check(place, self._files.form(place))
        return {"html": str(self._documents(place, checked))}

    def _propose(self, asked: DraftBody) -> dict[str, object]:
        place = self._files.place(asked.taxonomy, asked.path)
        checked = self._files.check(place, self._files.form(place))
        pairs = self._drafts.propose(asked.recipe, checked.documents)
        return {
            "drafts": [
                {"context": p.context, "question": p.question, "answer": p.answer} for p in pairs
            ]
        }

    def _documents(self, place: LeafPlace, checked: CheckedLeaf) -> Markup:
        return render(
            "leaf_documents.html.j2",
            place=place,
            checked=checked,
            max_letters=MAX_SHOWN_LETTERS,
            offers=self._drafts.offers(checked.documents) if self._author else [],
            can_edit=bool(self._author),
        )

    async def _answer(
        self, request: web.Request, kind: type[B], work: Callable[[B], dict[str, object]]
    ) -> web.Response:
        if not self._author:
            return web.Response(status=403, text=READ_ONLY)
        try:
            asked = kind.model_validate_json(await request.read())
            told = await asyncio.to_thread(work, asked)
        except ValidationError as error:
            first = error.errors()[0]
            return web.Response(status=422, text=f"{first['loc'][-1]}: {first['msg']}")
        except FeldsparError as error:
            return web.Response(status=409, text=str(error))
        return web.json_response(told)
