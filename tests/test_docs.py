"""The pages: every relative link leads to a file and a heading, and the site lists every page."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *(ROOT / n for n in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "AGENTS.md")),
        *(ROOT / n for n in ("CHANGELOG.md", "llms.txt")),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "benchmarks").rglob("*.md"),
    ]
)
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]+))?\)")


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```|`[^`\n]*`", "", text, flags=re.S | re.M)


def anchors(path: Path) -> set[str]:
    """What headings are reached by, as GitHub and the site make it."""
    headings = re.findall(
        r"^#+ +(.*)", re.sub(r"^```.*?^```", "", text_of(path), flags=re.S | re.M), re.M
    )
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()).strip() for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for file, anchor in LINK.findall(without_code(text_of(page))):
        target = page.parent / file if file else page
        if not target.exists():
            lost.append(file)
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            lost.append(f"{file}#{anchor}")
    assert lost == []


def test_the_site_lists_every_page_of_the_docs() -> None:
    text = text_of(ROOT / "docs" / "mkdocs.yml")
    listed = set(re.findall(r"docs/([\w-]+\.md)", str(yaml.safe_load(text)["nav"])))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_agents_are_told_of_pages_that_are_there() -> None:
    named = re.findall(r"\(([\w./-]+\.md)\)", text_of(ROOT / "llms.txt"))
    assert len(named) >= 12
    assert all((ROOT / name).is_file() for name in named)
