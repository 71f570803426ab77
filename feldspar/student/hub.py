"""Models on the Hugging Face hub: by id and revision, fetched, and known by their commit.

    owner/name                  what the hub has now
    owner/name@v1.0             a branch, a tag, or a commit

A private or gated model needs HF_TOKEN in the environment (or `hf auth login`), never the recipe;
HF_ENDPOINT names another hub.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from feldspar.errors import TrainingError
from feldspar.files import write_json
from feldspar.stored import read_stored

PINNED_FILE = "hub.json"
"""In a run: the commit of each model that it had from the hub."""
_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


class HubName(NamedTuple):
    """A model on the hub."""

    id: str
    revision: str | None = None
    """None: what the hub has now."""

    def __str__(self) -> str:
        return self.id if self.revision is None else f"{self.id}@{self.revision}"


def hub_name(text: str) -> HubName | None:
    """`owner/name` or `owner/name@revision`; None where it is another thing.

    >>> hub_name("owner/name@refs/pr/1")
    HubName(id='owner/name', revision='refs/pr/1')
    """
    id_, at, revision = text.partition("@")
    if not _ID.fullmatch(id_) or bool(at) != bool(revision):
        return None
    return HubName(id_, revision or None)


def download(
    name: HubName, patterns: Sequence[str], kind: Literal["model", "dataset"] = "model"
) -> Path:
    """Fetch the files that match into the hub's cache; gives their folder, named by the commit.

    Raises TrainingError with the cure.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(
            snapshot_download(
                name.id,
                repo_type=kind,
                revision=name.revision,
                allow_patterns=list(patterns),
                endpoint=os.environ.get("HF_ENDPOINT"),
            )
        )
    except RevisionNotFoundError as error:
        raise TrainingError(
            f"{name}: the hub has no such branch, tag or commit of {name.id}"
        ) from error
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403) or isinstance(error, RepositoryNotFoundError):
            raise TrainingError(
                f"{name}: no such directory, and the hub does not show it: where it is private or "
                "gated, HF_TOKEN in the environment must be a token that may read it"
            ) from error
        reason = str(error).strip().split("\n")[0]
        raise TrainingError(
            f"{name}: no such directory, and the hub does not give it: {reason}"
        ) from error


def commit_of(folder: Path) -> str | None:
    """The commit that a folder of the hub's cache holds; None of any other folder."""
    is_snapshot = folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name)
    return folder.name if is_snapshot else None


def with_commit(text: str, folder: Path) -> str:
    """A model of the hub by the commit that its folder holds; any other as it is named."""
    name, commit = hub_name(text), commit_of(folder)
    if name is None or commit is None or Path(text).is_dir():
        return text
    return str(HubName(name.id, commit))


def pinned(text: str, run_path: Path | None) -> str:
    """A model as a run has noted it: by its commit, where it had it from the hub before.

    So a run goes on with the base it began with, whatever the hub has now.
    """
    name = hub_name(text)
    if name is None or Path(text).is_dir() or run_path is None:
        return text
    commit = _noted(run_path).get(text)
    return text if commit is None else str(HubName(name.id, commit))


def note_commit(text: str, folder: Path, run_path: Path) -> None:
    """Write the commit of a model of the hub into a run, once."""
    commit, noted = commit_of(folder), _noted(run_path)
    is_new = text not in noted and with_commit(text, folder) != text
    if commit is not None and is_new:
        write_json(run_path / PINNED_FILE, noted | {text: commit})


def _noted(run_path: Path) -> dict[str, str]:
    path = run_path / PINNED_FILE
    return read_stored(path, dict[str, str]) if path.exists() else {}
