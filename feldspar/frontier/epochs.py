"""Arms at equal trained tokens: as many epochs as come nearest to what another arm trained on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from feldspar.config import Recipe
from feldspar.errors import RunError
from feldspar.records import Conversation, Phase, Source
from feldspar.runs import open_step, read_recipe_of, read_rows
from feldspar.student.model import find_model
from feldspar.student.training.schedule import SourceRows, draws
from feldspar.tokens.count import TokenCounter

_STOP = 1
"""Token that ends an answer, which is trained on too."""


def equal_epochs(recipe: Recipe, path: Path, first_path: Path) -> Recipe:
    """The recipe with each phase's epochs changed so that it sees as many trained tokens as the
    phase of the same name in the run at `first_path`; at least one. Both runs have mixed.

    A phase that the first run lacks stays as it is. Raises RunError where a run has no phases.
    """
    counter = TokenCounter(find_model(read_recipe_of(path).student.base))
    first_epochs = {p.name: p.num_epochs for p in read_recipe_of(first_path).train.phase}
    wanted = {
        name: tokens * first_epochs[name]
        for name, tokens in _epoch_tokens(first_path, counter).items()
    }
    here = _epoch_tokens(path, counter)
    phases = tuple(
        phase.model_copy(
            update={"num_epochs": max(1, round(wanted[phase.name] / here[phase.name]))}
        )
        if wanted.get(phase.name) and here.get(phase.name)
        else phase
        for phase in recipe.train.phase
    )
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"phase": phases})})


def _epoch_tokens(path: Path, counter: TokenCounter) -> dict[str, float]:
    """Trained tokens of one epoch by phase, if a source's rows are drawn evenly."""
    phases = open_step(path, "phases")
    if phases is None:
        raise RunError(f"{path} has mixed no phases yet")
    return {phase.name: _tokens_of(phase, counter) for phase in phases}


def _tokens_of(phase: Phase, counter: TokenCounter) -> float:
    rows = [
        SourceRows(name=s.name, num_rows=s.num_samples, fraction=s.fraction, share=s.share)
        for s in phase.sources
    ]
    drawn = zip(phase.sources, draws(rows), strict=True)
    return sum(num * _mean_tokens(source, counter) for source, num in drawn)


def _mean_tokens(source: Source, counter: TokenCounter) -> float:
    counts = counter.counts(list(_trained_texts(read_rows(Path(source.path), Conversation))))
    return (sum(counts) + _STOP * len(counts)) / max(1, source.num_samples)


def _trained_texts(rows: Iterable[Conversation]) -> Iterable[str]:
    """What has a loss: answers, or all turns where the row says so."""
    for row in rows:
        for message in row.messages:
            if message.role == "assistant" or row.train_on in ("turns", "everything"):
                yield message.content
