"""Wheel and sdist, built, installed and run in environments of their own.

    python benchmarks/wheel_and_sdist.py          # wheel, sdist, uvx, all extras; prints a table
    python benchmarks/wheel_and_sdist.py --full   # the quickstart as it is, not in small
    python benchmarks/wheel_and_sdist.py --lowest # fast tests with the lowest versions
    python benchmarks/wheel_and_sdist.py --document FILE  # and a PDF read: extra `documents`

Every environment is fresh, lies in a temporary folder and takes what constraints.txt pins. Commands
run in an empty folder, without PYTHONPATH. Ends with 1 where any command fails.
"""

import argparse
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
SMALL = (
    *("world.num_old=12", "world.num_new=10", "world.training=0.002", "prefer=none"),
    *("generate.samples_per_leaf=6", "generate.calls_per_chunk=1", "generate.exam_items=4"),
    *("generate.pairs_per_call=2", "train.batch_samples=32", "train.warmup_steps=1"),
    *("evaluate.max_new_tokens=8", "evaluate.num_resamples=50"),
)
EXTRAS = ("documents", "eval", "gguf", "lora", "parquet", "retrieval", "tracking")
TESTED = ("dev", *(extra for extra in EXTRAS if extra != "documents"))
"""What the tests use."""
READ_DOCUMENT = """
import sys
from pathlib import Path
from docling.datamodel.base_models import InputFormat
from docling.datamodel.pipeline_options import NativePdfPipelineOptions
from docling.document_converter import DocumentConverter, PdfFormatOption
from docling.pipeline.native_pdf_pipeline import NativePdfPipeline
from docx import Document
from feldspar.taxonomy.documents.office import text_of_office
path, cache = Path(sys.argv[1]), Path(sys.argv[2])
cache.mkdir()
document = Document()
document.add_heading("Quartz")
document.add_paragraph("Quartz is hard and clear.")
document.save(cache / "quartz.docx")
text = text_of_office(cache / "quartz.docx", cache, may_fetch=False)
assert text.split() == "# Quartz Quartz is hard and clear.".split(), text
try:
    num_words = len(text_of_office(path, cache, may_fetch=True).split())
    said = f"{num_words} words with docling's models"
except Exception as error:
    said = f"docling's models: {type(error).__name__}"
options = PdfFormatOption(
    pipeline_cls=NativePdfPipeline, pipeline_options=NativePdfPipelineOptions()
)
converter = DocumentConverter(format_options={InputFormat.PDF: options})
plain = converter.convert(path).document.export_to_markdown()
print(f"DOCX as written; {said}; {len(plain.split())} words by docling's parser alone")
"""


class Row(NamedTuple):
    what: str
    seconds: float
    says: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the quickstart as it is")
    parser.add_argument("--lowest", action="store_true", help="the lower bounds, and nothing else")
    parser.add_argument("--tests", nargs="*", default=[], help="with --lowest: these files alone")
    parser.add_argument("--document", type=Path, help="a PDF to be read with docling")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            if arguments.lowest:
                rows += lowest(folder, arguments.tests)
            elif arguments.document:
                rows += document(folder, arguments.document.resolve())
            else:
                settings = () if arguments.full else SMALL
                rows += both(folder, settings)
        except subprocess.CalledProcessError as error:
            words = " ".join(str(part) for part in error.cmd)
            print(f"failed ({error.returncode}): {words}\n{error.stdout}\n{error.stderr}")
            return 1
        finally:
            show(rows)
    return 0


def both(folder: Path, settings: tuple[str, ...]) -> list[Row]:
    """Wheel and sdist, each in an environment of its own; then uvx and all extras together."""
    rows = [timed("build", build(folder / "dist"))]
    wheel, sdist = sorted((folder / "dist").glob("feldspar-*"), key=lambda p: p.suffix != ".whl")
    for path in (wheel, sdist):
        rows.append(Row(f"size of {path.name}", 0, f"{path.stat().st_size / 1e6:.2f} MB"))
    chosen = [word for setting in settings for word in ("--set", setting)]
    for kind, path in (("wheel", wheel), ("sdist", sdist)):
        python = environment(folder / kind)
        install = [python, "-m", "pip", "install", "-q", "-c", CONSTRAINTS, path]
        rows.append(timed(f"{kind}: pip install", install))
        rows.append(Row(f"{kind}: installed", 0, installed(python)))
        command = python.with_name("feldspar")
        empty = folder / f"{kind}-empty"
        empty.mkdir()
        rows.append(timed(f"{kind}: feldspar --version", [command, "--version"], cwd=empty))
        init = [command, "init", "--recipe", "merlinite-7b-pt"]
        rows.append(timed(f"{kind}: feldspar init --recipe merlinite-7b-pt", init, cwd=empty))
        quick = [command, "quickstart", *chosen]
        rows.append(timed(f"{kind}: feldspar quickstart", quick, cwd=empty, shows=r"report: .*"))
        # Room for the next one.
        shutil.rmtree(folder / kind)
    if uvx := shutil.which("uvx"):
        empty = folder / "uvx-empty"
        empty.mkdir()
        call = [uvx, "--no-cache", "-c", CONSTRAINTS, "--from", wheel]
        call += ["feldspar", "quickstart", *chosen]
        rows.append(timed("uvx --from WHEEL feldspar quickstart", call, empty, r"report: .*"))
    python = environment(folder / "extras")
    together = f"{wheel}[{','.join(EXTRAS)}]"
    resolve = [python, "-m", "pip", "install", "-q", "--dry-run", "-c", CONSTRAINTS, together]
    rows.append(timed(f"extras resolve together: {', '.join(EXTRAS)}", resolve))
    return rows


def build(folder: Path) -> list[object]:
    folder.mkdir()
    python = environment(folder.parent / "build")
    subprocess.run([python, "-m", "pip", "install", "-q", "build"], check=True)
    return [python, "-m", "build", "--outdir", folder, ROOT]


def lowest(folder: Path, files: list[str]) -> list[Row]:
    """The lowest direct versions that pyproject.toml allows, installed and tested. torch is exempt:
    another build than the one at hand is several gigabytes."""
    torch = next(p for p in CONSTRAINTS.read_text().splitlines() if p.startswith("torch=="))
    constraints = folder / "torch.txt"
    constraints.write_text(f"{torch}\n", encoding="utf-8")
    tools = environment(folder / "tools")
    subprocess.run([tools, "-m", "pip", "install", "-q", "uv"], check=True)
    python = environment(folder / "lowest")
    install = [tools.with_name("uv"), "pip", "install", "-q", "--python", python]
    install += ["--resolution", "lowest-direct", "-c", constraints]
    rows = [timed("lowest: uv pip install", [*install, "-e", f"{ROOT}[{','.join(TESTED)}]"])]
    rows.append(Row("lowest: installed", 0, installed(python)))
    rows.append(Row("lowest: versions", 0, versions(python)))
    tests = [
        python,
        "-m",
        "pytest",
        "-m",
        "not slow and not gpu",
        "-n",
        "2",
        "--dist",
        "loadfile",
        *files,
    ]
    # What such old versions warn of is theirs.
    tests += ["-W", "default", "-p", "no:cacheprovider"]
    rows.append(timed("lowest: fast tests", tests, cwd=ROOT, shows=r"\d+ passed.*"))
    return rows


def versions(python: Path) -> str:
    """Of what pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"]]
    wanted += [r for extra in TESTED for r in project["optional-dependencies"][extra]]
    site = next((python.parents[1] / "lib").glob("python*/site-packages"))
    found = {
        re.sub(r"[-_.]+", "-", d.metadata["Name"]).lower(): d.version
        for d in importlib.metadata.distributions(path=[str(site)])
    }
    names = [re.match(r"[\w.-]+", requirement) for requirement in wanted]
    plain = [re.sub(r"[-_.]+", "-", name[0]).lower() for name in names if name]
    return ", ".join(f"{name} {found.get(name, 'missing')}" for name in plain)


def document(folder: Path, path: Path) -> list[Row]:
    """A document read by docling, in an environment with that extra alone."""
    python = environment(folder / "documents")
    install = [python, "-m", "pip", "install", "-q", "-c", CONSTRAINTS, f"{ROOT}[documents]"]
    rows = [timed("documents: pip install", install)]
    rows.append(Row("documents: installed", 0, installed(python)))
    rows.append(
        timed(f"documents: {path.name}", [python, "-c", READ_DOCUMENT, path, folder / "cache"])
    )
    return rows


def environment(folder: Path) -> Path:
    """The interpreter of a fresh virtual environment."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def timed(what: str, command: list[object], cwd: Path | None = None, shows: str = ".*") -> Row:
    """Run it; what it says last that fits `shows`. Raises CalledProcessError where it fails."""
    kept = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "FELDSPAR_CACHE")}
    began = time.monotonic()
    words = [str(part) for part in command]
    done = subprocess.run(words, cwd=cwd, env=kept, capture_output=True, text=True, check=True)
    took = time.monotonic() - began
    lines = [found[0] for line in done.stdout.splitlines() if (found := re.search(shows, line))]
    row = Row(what, took, lines[-1].strip() if lines else "")
    print(f"{row.what}: {row.seconds:.0f} s {row.says}", file=sys.stderr)
    return row


def installed(python: Path) -> str:
    """How many packages, and how large they are on disk."""
    site = next((python.parents[1] / "lib").glob("python*/site-packages"))
    size = sum(p.stat().st_size for p in site.rglob("*") if p.is_file() and not p.is_symlink())
    torch = sum(p.stat().st_size for p in (site / "torch").rglob("*") if p.is_file())
    num = len({d.metadata["Name"] for d in importlib.metadata.distributions(path=[str(site)])})
    return f"{num} packages, {size / 1e6:,.0f} MB, of which torch {torch / 1e6:,.0f} MB"


def show(rows: list[Row]) -> None:
    print(f"\nPython {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores\n")
    print("| what | seconds | says |\n|---|---:|---|")
    for what, seconds, says in rows:
        print(f"| {what} | {f'{seconds:.0f}' if seconds else ''} | {says} |")


if __name__ == "__main__":
    sys.exit(main())
