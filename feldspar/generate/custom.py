"""Pipelines of the user's own: an asynchronous function in a Python file that the recipe names.

The file is code by intention, on the user's own disk. Nothing else is ever run.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
import traceback
import types
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from feldspar.config import GenerateConfig, PipelineConfig
from feldspar.errors import FeldsparError, RecipeError
from feldspar.generate.draft import Rejected, SampleRequest
from feldspar.generate.writers import Writers
from feldspar.records import Sample

Write = Callable[[SampleRequest, Writers], Awaitable[list[Sample]]]


class CustomPipeline(NamedTuple):
    config: PipelineConfig
    write: Write

    async def run(self, request: SampleRequest, writers: Writers) -> list[Sample]:
        """Raises Rejected as any pipeline does, RecipeError for a fault in the file."""
        try:
            samples = await self.write(request, writers)
        except (Rejected, FeldsparError):
            raise
        except Exception as error:
            raise _fault(self.config, error, f"on leaf {request.leaf.path}") from error
        self._check(samples, request)
        return samples

    def _check(self, samples: object, request: SampleRequest) -> None:
        place = f"{self.config.file}: {self.config.function}"
        if not isinstance(samples, list) or not all(isinstance(s, Sample) for s in samples):
            raise RecipeError(
                f"{place} must return a list of samples: `await writers.finish(draft)`"
            )
        if len({sample.id for sample in samples}) < len(samples):
            raise RecipeError(f"{place} gave a sample twice; give each draft an `index` of its own")
        if any(sample.leaf != request.leaf.path for sample in samples):
            raise RecipeError(f"{place} gave a sample of another leaf than its request's")


class CustomPipelines:
    """A recipe's own pipelines. Raises RecipeError where one cannot be run."""

    def __init__(self, config: GenerateConfig) -> None:
        self._by_place: dict[str, CustomPipeline] = {}
        self._unused: set[str] = set()
        for given in config.pipeline:
            pipeline = CustomPipeline(given, _load(given))
            for place in given.leaves:
                self._by_place[place.strip("/")] = pipeline
        self._unused.update(self._by_place)

    def of_leaf(self, path: str) -> CustomPipeline | None:
        """The one whose branch or leaf is the deepest that `path` lies in."""
        if not self._by_place:
            return None
        folders = path.split("/")
        for depth in range(len(folders), 0, -1):
            place = "/".join(folders[:depth])
            if place in self._by_place:
                self._unused.discard(place)
                return self._by_place[place]
        return None

    def unused(self) -> list[str]:
        """Places that no leaf asked for so far lies in."""
        return sorted(self._unused)


def _load(config: PipelineConfig) -> Write:
    path = Path(config.file)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise RecipeError(
            f"{path}: this pipeline cannot be read ({error.strerror}); mend `generate.pipeline`"
        ) from None
    digest = hashlib.sha256(source).hexdigest()[:16]
    module = types.ModuleType(f"feldspar_pipeline_{digest}")
    module.__file__ = str(path)
    # Dataclasses look for the module that they are defined in.
    sys.modules[module.__name__] = module
    try:
        # Not by an import: a file edited twice in a second would be found in its old form.
        exec(compile(source, str(path), "exec"), module.__dict__)
    except Exception as error:
        raise _fault(config, error, "while it was read") from error
    function = getattr(module, config.function, None)
    if function is None:
        raise RecipeError(f"{path}: there is no function {config.function!r}; mend its name")
    if not inspect.iscoroutinefunction(function):
        raise RecipeError(f"{path}: {config.function} must be an `async def`")
    write: Write = function
    return write


def _fault(config: PipelineConfig, error: Exception, when: str) -> RecipeError:
    lines = [
        f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == config.file
    ]
    line = error.lineno if isinstance(error, SyntaxError) else next(reversed(lines), None)
    said = " ".join(str(error).split())[:200]
    return RecipeError(
        f"{config.file}:{line or 1}: {config.function} raised {type(error).__name__} {when}: "
        f"{said}; mend it and run again: every answer so far is kept"
    )
