"""A published directory given on: to the hub, and to llama.cpp."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feldspar.errors import RunError
from feldspar.files import PART_SUFFIX, whole_file

CONVERTER = "convert_hf_to_gguf.py"
NEEDED = "pip install sentencepiece"
"""All that the converter imports and this project does not install."""
_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
CONVERTER_FOLDER = "LLAMA_CPP"
"""Environment variable with llama.cpp's folder, where its converter is not on the path."""


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
    failures: tuple[type[Exception], ...] = (HFValidationError, OSError)
    for kind in HfHubHTTPError.__mro__:
        if kind.__name__ == "HTTPError" and issubclass(kind, Exception):
            failures += (kind,)
    try:
        yield
    except failures as error:
        reason = str(error).strip().split("\n")[0]
        raise RunError(
            f"{repository}: not pushed: {reason}; a token with the right to write belongs into the "
            "environment as HF_TOKEN, and the hub must be reachable (HF_ENDPOINT names another)"
        ) from error


def push_to_hub(folder: Path, repository: str) -> str:
    """Upload a published directory as a model repository of the hub; gives its address.

    The token is the environment's HF_TOKEN, or that of `hf auth login`; HF_ENDPOINT names another
    hub. Raises RunError where the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    with _explained(repository):
        made = api.create_repo(repository, exist_ok=True)
        done = api.upload_folder(
            folder_path=folder,
            repo_id=made.repo_id,
            commit_message="Upload a model made with Feldspar",
            ignore_patterns=[f"*.gguf{PART_SUFFIX}"],
        )
    return str(done.commit_url)


def write_gguf(folder: Path, name: str) -> Path:
    """Convert a published directory with llama.cpp's own converter; gives `NAME.gguf` in it.

    Raises RunError where the converter is not there, or cannot convert this model.
    """
    converter = find_converter()
    path = folder / f"{name}.gguf"
    with whole_file(path) as beside:
        command = [sys.executable, str(converter), str(folder), "--outfile", str(beside)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not beside.exists():
            said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
            cure = f"; {NEEDED}" if "No module named 'sentencepiece'" in said[-1] else ""
            raise RunError(f"{converter}: could not convert {folder}: {said[-1]}{cure}")
    return path


def find_converter() -> Path:
    """llama.cpp's converter. Raises RunError with the cure where there is none."""
    folder = os.environ.get(CONVERTER_FOLDER)
    found = str(Path(folder) / CONVERTER) if folder else shutil.which(CONVERTER)
    if not found or not Path(found).is_file():
        raise RunError(
            f"no {CONVERTER} here; clone llama.cpp, set {CONVERTER_FOLDER} to its folder, and "
            f"{NEEDED} (its requirements.txt would put an older transformers in place of yours)"
        )
    return Path(found)
