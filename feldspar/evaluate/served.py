"""A served model among a run's checkpoints: what its row and its files are called."""

from __future__ import annotations

from collections.abc import Iterable


def served_name(model: str, checkpoints: Iterable[str]) -> str:
    """The model's own name, or `served NAME` where a checkpoint of the run is called so."""
    return f"served {model}" if model in checkpoints else model


def file_name(model: str) -> str:
    """`owner__name` of `owner/name`: a name to be part of a path."""
    return model.replace("/", "__")
