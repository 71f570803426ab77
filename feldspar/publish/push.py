"""A published directory given on to the hub."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feldspar.errors import RunError
from feldspar.files import PART_SUFFIX

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def check_hub(repository: str) -> None:
    """Ask the hub who we are, before a directory is made for it.

    Raises RunError where the name is none, no token is there, or the hub does not take it or
    cannot be reached.
    """
    from huggingface_hub import HfApi, get_token

    with _explained(repository):
        if not _REPOSITORY.fullmatch(repository):
            raise RunError(f"{repository}: not pushed: name it as OWNER/NAME")
        if get_token() is None:
            raise OSError("no token for the hub")
        HfApi(endpoint=os.environ.get("HF_ENDPOINT")).whoami()


@contextmanager
def _explained(repository: str) -> Iterator[None]:
    """Every way in which the hub fails, as a RunError."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # Of the HTTP library that this version of the hub's client stands on.
    # A large file that cannot be sent is a RuntimeError there.
    failures: tuple[type[Exception], ...] = (HFValidationError, OSError, RuntimeError)
    for kind in HfHubHTTPError.__mro__:
        if kind.__name__ == "HTTPError" and issubclass(kind, Exception):
            failures += (kind,)
    try:
        yield
    except failures as error:
        parts = [str(one).strip().split("\n")[0] for one in (error, error.__cause__) if one]
        reason = ": ".join(part.rstrip(".") for part in parts)
        raise RunError(
            f"{repository}: not pushed: {reason}; a token with the right to write belongs into the "
            "environment as HF_TOKEN, and the hub must be reachable (HF_ENDPOINT names another)"
        ) from error


_OF_ONE_MODEL = (
    *("*.safetensors", "*.safetensors.index.json", "*.gguf", "*.Modelfile"),
    *("adapter/*", ".eval_results/*"),
)


def push_to_hub(folder: Path, repository: str, *, private: bool = False) -> str:
    """Upload a published directory as a model repository of the hub; gives the commit's address.

    What an earlier try has sent is not sent again: large files are known by their content. Weights,
    GGUF files and adapters that lie there and are not in the directory are taken out. A
    repository that is made now is `private` where that is wanted. The token is the environment's
    HF_TOKEN, or that of `hf auth login`; HF_ENDPOINT names another hub. Raises RunError where the
    hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    with _explained(repository):
        made = api.create_repo(repository, exist_ok=True, private=private or None)
        done = api.upload_folder(
            folder_path=folder,
            repo_id=made.repo_id,
            commit_message="Upload a model made with Feldspar",
            ignore_patterns=[f"*.gguf{PART_SUFFIX}"],
            # Of an earlier model: its weights would be loaded in place of these.
            delete_patterns=list(_OF_ONE_MODEL),
        )
    return str(done.commit_url)
