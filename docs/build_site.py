"""Build the site: `make docs`, or `python docs/build_site.py` where mkdocs-material is installed.

Pages link to each other as they lie in the repository, so they are staged in the same places, with
an index for folders that pages link to. Strict: a link or an anchor that leads nowhere ends it.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build" / "pages"
TOP = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "AGENTS.md")
SHOWN = {".md", ".svg", ".png", ".toml", ".sh", ".yaml"}
INDEXED = {"docs/decisions": "Decisions", "recipes": "Recipes", "benchmarks": "Benchmarks"}


def main() -> int:
    shutil.rmtree(PAGES, ignore_errors=True)
    for path in (*(ROOT / name for name in TOP), *files("docs"), *files("benchmarks")):
        stage(path)
    for path in files("recipes"):
        stage(path)
    for folder, title in INDEXED.items():
        write_index(PAGES / folder, title)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"]
    command += ["--config-file", str(ROOT / "docs" / "mkdocs.yml")]
    # The theme's notice of its successor is no warning about a page.
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, env=quiet, check=False)
    if done.returncode == 0:
        print(ROOT / "build" / "site" / "index.html")
    return done.returncode


def files(folder: str) -> list[Path]:
    """What a page can show, in and below a folder."""
    found = (ROOT / folder).rglob("*")
    return sorted(p for p in found if p.suffix in SHOWN and ".feldspar" not in p.parts)


def stage(path: Path) -> None:
    target = PAGES / path.relative_to(ROOT)
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".md":
        shutil.copy(path, target)
        return
    text = path.read_text(encoding="utf-8")
    # A folder is shown by its index.
    for folder in INDEXED:
        text = re.sub(rf"\]\(((?:\.\./)?{folder})/?\)", r"](\1/index.md)", text)
    text = text.replace("](../benchmarks/cases)", "](../benchmarks/cases/README.md)")
    target.write_text(text, encoding="utf-8")


def write_index(folder: Path, title: str) -> None:
    lines = [f"# {title}", ""]
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".md", ".toml")):
        lines.append(f"- [{heading(path)}]({path.name})")
    (folder / "index.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def heading(path: Path) -> str:
    """A page's first line without its mark; of a recipe its name."""
    first = path.read_text(encoding="utf-8").lstrip().partition("\n")[0]
    return first.removeprefix("# ") if path.suffix == ".md" else path.stem


if __name__ == "__main__":
    sys.exit(main())
