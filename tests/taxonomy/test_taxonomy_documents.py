"""Documents as they are found in the wild: names, spellings, pictures, pages."""

from __future__ import annotations

import time
import unicodedata
from pathlib import Path

import pytest

from feldspar.taxonomy import LeafFile, inspect_taxonomy
from feldspar.taxonomy.documents.find import matches
from feldspar.taxonomy.documents.html_text import text_of_html
from feldspar.taxonomy.documents.pictures import without_pictures

SEEDS = "seed_examples:\n" + "".join(f"- {{question: q{i}, answer: a}}\n" for i in range(5))


def leaf_with(
    folder: Path, files: dict[str, str], document: str, *, seeds: str = SEEDS, mirror: str = ""
) -> LeafFile:
    leaf = folder / "knowledge" / "leaf"
    leaf.mkdir(parents=True)
    (leaf / "qna.yaml").write_text(f"{seeds}document: {document}\n", encoding="utf-8")
    (leaf / "attribution.txt").write_text("License of the work: CC0-1.0\n", encoding="utf-8")
    for name, text in files.items():
        path = (folder.parent / mirror if mirror else leaf) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (leaf_file,) = inspect_taxonomy(folder, folder.parent / mirror if mirror else None)
    return leaf_file


def codes(leaf_file: LeafFile) -> list[str]:
    return [finding.code for finding in leaf_file.findings]


@pytest.mark.parametrize(
    ("file", "pattern", "expected"),
    [
        ("A.MD", "*.md", True),
        ("ferry[1].md", "ferry[1].md", True),
        ("ferry1.md", "ferry[1].md", True),
        ("docs[1]/a.md", "docs[1]/*.md", True),
        (unicodedata.normalize("NFD", "Fähre.md"), unicodedata.normalize("NFC", "Fähre.md"), True),
        ("a.md", "*.txt", False),
    ],
)
def test_a_pattern_means_the_names_that_people_read(
    file: str, pattern: str, expected: bool
) -> None:
    assert matches(file, pattern) is expected


def test_suffixes_in_upper_case_are_read(tmp_path: Path) -> None:
    read = leaf_with(
        tmp_path / "t", {"docs/A.MD": "One.", "docs/B.HTML": "<p>Two."}, "{path: docs}"
    )
    assert [document.text for document in read.documents] == ["One.", "Two.\n"]
    assert codes(read) == []


def test_a_folder_named_in_another_spelling_of_unicode_is_found(tmp_path: Path) -> None:
    folder = unicodedata.normalize("NFD", "Fähren")
    document = f"{{path: {unicodedata.normalize('NFC', 'Fähren')}}}"
    assert codes(leaf_with(tmp_path / "t", {f"{folder}/a.md": "One."}, document)) == []


def test_a_context_in_another_spelling_of_unicode_is_in_its_document(tmp_path: Path) -> None:
    text = "Die Fähre fährt täglich über die Förde nach Süden zurück."
    seeds = "seed_examples:\n" + "".join(
        f"- {{question: q{i}, answer: a, context: '{unicodedata.normalize('NFC', text)}'}}\n"
        for i in range(5)
    )
    files = {"a.md": unicodedata.normalize("NFD", text)}
    read = leaf_with(tmp_path / "t", files, "{path: a.md}", seeds=seeds)
    assert "FT041" not in codes(read)
    assert read.documents[0].text == unicodedata.normalize("NFC", text)


def test_a_pdf_that_nobody_named_is_told(tmp_path: Path) -> None:
    read = leaf_with(tmp_path / "t", {"docs/a.md": "One.", "docs/b.PDF": "%PDF"}, "{path: docs}")
    (finding,) = read.findings
    assert (finding.code, finding.severity) == ("FT036", "warning")
    assert "`b.PDF`" in finding.message
    assert '"*.PDF"' in finding.cure


def test_of_two_folders_of_one_commit_the_one_with_the_files_counts(tmp_path: Path) -> None:
    files = {
        "someone+ferries/b60d0d0/ferry.md": "Nine.",
        "someone+ferries/b60d0d03b353/pier.txt": "x",
    }
    for number, commit in enumerate(("b60d0d0", "b60d0d03b353", "b60d0d03b353aaaa")):
        document = f"{{repo: https://x.org/someone/ferries, commit: {commit}, patterns: ['*.md']}}"
        taxonomy = tmp_path / str(number) / "t"
        taxonomy.mkdir(parents=True)
        read = leaf_with(taxonomy, files, document, mirror="mirror")
        assert codes(read) == []
        assert [document.text for document in read.documents] == ["Nine."]


def test_of_two_alike_folders_the_one_that_is_named_counts(tmp_path: Path) -> None:
    files = {"a+b/b60d0d0/x.md": "short", "a+b/b60d0d03b353/x.md": "long"}
    document = "{repo: https://x.org/a/b, commit: b60d0d0, patterns: ['*.md']}"
    read = leaf_with(tmp_path / "t", files, document, mirror="mirror")
    assert [document.text for document in read.documents] == ["short"]


def test_pictures_in_a_text_leave_their_alt_text() -> None:
    picture = "data:image/png;base64," + "iVBORw0KGgo" * 1000
    text = (
        f"A ![red pier]({picture}) b ![]({picture} 'title').\n"
        f"<img alt='a boat' src=\"{picture}\">\n[pic]: {picture}\n{picture}\nThe data: none.\n"
    )
    read = without_pictures(text)
    assert read.text == "A red pier b .\na boat\n\nThe data: none.\n"
    assert read.num_pictures == 5


def test_a_document_full_of_pictures_is_told_and_cut_without_them(tmp_path: Path) -> None:
    picture = "![pier](data:image/png;base64," + "A" * 80_000 + ")"
    read = leaf_with(tmp_path / "t", {"a.md": f"The ferry.\n\n{picture}\n"}, "{path: a.md}")
    assert codes(read) == ["FT039"]
    assert read.documents[0].text == "The ferry.\n\npier\n"


def test_code_keeps_its_indentation() -> None:
    code = "def f(x):\n    if x:\n        return '<1>'\n\n    return 2"
    page = "<h1>F</h1><pre><code><span>" + code.replace("<", "&lt;") + "</span></code></pre>"
    assert text_of_html(page) == f"# F\n\n```\n{code}\n```\n"


def test_elements_inside_a_sentence_do_not_break_it() -> None:
    page = "<p>The <font>ferry</font> <time>left</time> <x-y>at</x-y> <del>ten</del><wbr> nine.</p>"
    assert text_of_html(page) == "The ferry left at ten nine.\n"


PAGE = """<!doctype html><title>t</title><body>
<header>Site name</header><nav><ul><li><a href=/>Home</a></ul></nav>
<div class="cookie-banner">We use cookies. <button>Accept</button></div>
<div id=content><h1>The ferry</h1><p>The ferry leaves at nine from the old pier, every day of the
week, and <a href=x>comes back</a>.</p><h2><a href=#h>History</a></h2><p>It has left since
1902, with a break in the war.</p><p><a href=y>Read more</a></p></div>
<aside>Related: trains</aside><footer>Imprint</footer></body>"""


def test_only_the_main_text_of_a_page_is_read() -> None:
    assert text_of_html(PAGE) == (
        "# The ferry\n\nThe ferry leaves at nine from the old pier, every day of the week, and "
        "comes back.\n\n## History\n\nIt has left since 1902, with a break in the war.\n"
    )
    marked = PAGE.replace("<div id=content>", "<p>before</p><main>").replace(
        "</p></div>", "</p></main>"
    )
    assert text_of_html(marked) == text_of_html(PAGE).removesuffix("\n") + "\n\nRead more\n"


def test_what_is_named_as_a_menu_but_is_the_page_stays() -> None:
    text = "The ferry leaves at nine. " * 20
    assert "at nine" in text_of_html(f"<div class=menu><p>{text}</p></div>")
    assert "at nine" in text_of_html(f"<nav><p>{text}")
    index = "".join(f"<li><a href={i}>Page number {i}</a>" for i in range(9))
    assert "Page number 8" in text_of_html(f"<ul>{index}</ul>")


@pytest.mark.parametrize(
    "piece", ["<a ", "<nav>", "<div class=nav>", "<p>", "&#", "<pre>", "<main>", "![", "<img data:"]
)
def test_a_hostile_page_takes_no_longer_than_it_is_long(piece: str) -> None:
    start = time.process_time()
    text_of_html(piece * 30_000)
    without_pictures(f"data:{piece * 30_000}")
    assert time.process_time() - start < 5
