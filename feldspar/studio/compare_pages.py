"""The page that sets two models against each other, of any two runs in the folder."""

from __future__ import annotations

from aiohttp import web

from feldspar.errors import RunError
from feldspar.studio.run_cache import RunCache
from feldspar.studio.shown import ShownPage
from feldspar.views.compare import ComparedModel, ComparedView, compare_models, scored_models
from feldspar.views.pages import render


class ComparePages:
    """Handlers of one app."""

    def __init__(self, runs: RunCache) -> None:
        self._runs = runs

    def page(self, request: web.Request) -> ShownPage:
        """`before` and `after` are `RUN@CHECKPOINT`, or `RUN` for its result."""
        models = self._models()
        before = _named(models, request.query.get("before", ""))
        after = _named(models, request.query.get("after", ""))
        compared: ComparedView | None = None
        fault = ""
        if before and after:
            try:
                compared = compare_models(self._model(before), self._model(after))
            except RunError as error:
                fault = str(error)
        body = render(
            "compare.html.j2", models=models, before=before, after=after, c=compared, fault=fault
        )
        return ShownPage("Compare", body)

    def _models(self) -> list[str]:
        found = []
        for name in self._runs.names():
            try:
                found += scored_models(self._runs.open(name).files)
            except RunError:
                # A damaged run says so on its own pages.
                continue
        return found

    def _model(self, named: str) -> ComparedModel:
        run, _, checkpoint = named.rpartition("@")
        return ComparedModel(self._runs.open(run).files, checkpoint)


def _named(models: list[str], asked: str) -> str:
    """The model that is meant: all of its name, or its run's, whose result comes first."""
    return next((m for m in models if asked and asked in (m, m.rpartition("@")[0])), "")
