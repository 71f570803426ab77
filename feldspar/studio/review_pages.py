"""Decisions on samples from the page: checked, appended to the reviewer's file, and shown again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feldspar.errors import FeldsparError, disk_fault
from feldspar.records import Sample
from feldspar.reviews import MAX_LETTERS, ReviewDecision, add_decision, review_key
from feldspar.studio.run_cache import OpenRun, RunCache
from feldspar.views.links import studio_link
from feldspar.views.pages import Pages

MAX_REASON_LETTERS = 500


class ReviewQuestion(BaseModel):
    """The body of a decision."""

    model_config = ConfigDict(extra="forbid")
    sample: str
    """Its id in the run."""
    key: str
    """Of its content as it was shown: another generation may have taken its place."""
    verdict: Literal["accepted", "rejected", "edited", "withdrawn"]
    reason: str = Field("", max_length=MAX_REASON_LETTERS)
    question: str = Field("", max_length=MAX_LETTERS)
    answer: str = Field("", max_length=MAX_LETTERS)


class ReviewPages:
    """Handlers of one app. `reviewer` is empty where the studio only reads."""

    def __init__(self, runs: RunCache, reviewer: str) -> None:
        self._runs, self._reviewer = runs, reviewer

    async def decide(self, request: web.Request) -> web.Response:
        """The sample as it is now shown, as HTML.

        Errors, as text: 403 read-only, 409 the sample is gone or another, 422 a wrong body, 500 it
        cannot be written.
        """
        if not self._reviewer:
            return web.Response(status=403, text="this studio only reads")
        run = self._runs.open(request.match_info["run"])
        try:
            asked = ReviewQuestion.model_validate_json(await request.read())
            sample = await asyncio.to_thread(_sample, run, asked)
            if sample is None:
                text = "the run's samples were written anew; load the page again"
                return web.Response(status=409, text=text)
            decision = self._decision(sample, asked)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            return web.Response(status=422, text=f"{where}: {first['msg']}")
        except ValueError as error:
            return web.Response(status=422, text=str(error))
        try:
            shown = await asyncio.to_thread(self._added, run, sample, decision)
        except FeldsparError as error:
            return web.Response(status=500, text=str(error))
        except OSError as error:
            return web.Response(status=500, text=disk_fault(error))
        return web.Response(text=shown, content_type="text/html")

    def _added(self, run: OpenRun, sample: Sample, decision: ReviewDecision) -> str:
        """The sample with its decision, which is on the disk."""
        add_decision(run.files.path, decision)
        views = Pages(run.files, studio_link(run.files.name), is_live=True)
        return str(views.reviewed_sample(sample, run.reviews(), self._reviewer))

    def _decision(self, sample: Sample, asked: ReviewQuestion) -> ReviewDecision:
        """Raises ValueError where something is missing."""
        is_edit = asked.verdict == "edited"
        if is_edit and sample.kind != "document" and not asked.question.strip():
            raise ValueError("an edited sample needs a question")
        return ReviewDecision(
            sample=asked.key,
            verdict=asked.verdict,
            reviewer=self._reviewer,
            at=datetime.now(UTC),
            leaf=sample.leaf,
            asked=sample.question,
            reason=asked.reason.strip(),
            question=asked.question.strip() if is_edit else "",
            answer=asked.answer.strip() if is_edit else "",
        )


def _sample(run: OpenRun, asked: ReviewQuestion) -> Sample | None:
    """The sample that is meant, if it still says what was shown."""
    index = run.index()
    sample = index.get(asked.sample) if index else None
    return sample if sample is not None and review_key(sample) == asked.key else None
