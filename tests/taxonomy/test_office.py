"""PDF and Office documents: a clear word where they cannot be read, and no archive bombs."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from feldspar.taxonomy.documents.office import MAX_UNPACKED_BYTES, text_of_office
from feldspar.taxonomy.documents.pdf_lines import PdfLine, markdown_of_lines
from feldspar.taxonomy.text_files import ReadFault


@pytest.mark.skipif(importlib.util.find_spec("docling") is not None, reason="docling is there")
def test_without_docling_its_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    with pytest.raises(ReadFault, match=r"pip install 'feldspar\[documents\]'"):
        text_of_office(tmp_path / "a.pdf", tmp_path / "cache", may_fetch=False)


@pytest.mark.slow
def test_a_bomb_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "bomb.docx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(21):
            archive.writestr(str(number), b"0" * (MAX_UNPACKED_BYTES // 20))
    with pytest.raises(ReadFault, match="unpacks to"):
        text_of_office(path, tmp_path / "cache", may_fetch=False)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pptx").write_bytes(b"no archive")
    with pytest.raises(ReadFault, match="not what its name says"):
        text_of_office(tmp_path / "a.pptx", tmp_path / "cache", may_fetch=False)


DOCLING = {
    "__init__": "",
    "datamodel/__init__": "",
    "datamodel/base_models": "class InputFormat:\n    PDF = 'pdf'\n",
    "datamodel/pipeline_options": """
        class PdfPipelineOptions:
            def __init__(self, artifacts_path):
                self.artifacts_path = artifacts_path
        """,
    "document_converter": """
        class PdfFormatOption:
            def __init__(self, pipeline_options):
                self.pipeline_options = pipeline_options

        class DocumentConverter:
            def __init__(self, format_options):
                self.options = format_options

            def convert(self, path, max_num_pages):
                if not self.options:
                    raise ConnectionError("no network")
                if path.read_bytes().endswith(b"broken"):
                    raise RuntimeError(f"Pipeline failed on {path.name}") from ValueError("no xref")
                self.document = self
                return self

            def export_to_markdown(self):
                return f"read with {self.options['pdf'].pipeline_options.artifacts_path.name}"
        """,
    "exceptions": "class BaseError(Exception):\n    pass\n",
}
"""What of docling is used, without its models."""


def test_models_for_pdf_are_named_and_not_fetched_unasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, code in DOCLING.items():
        file = tmp_path / "lib" / "docling" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(code))
    for name in [name for name in sys.modules if name.partition(".")[0] == "docling"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path / "lib")
    monkeypatch.setenv("DOCLING_ARTIFACTS_PATH", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    pdf, cache = tmp_path / "a.pdf", tmp_path / "cache"
    pdf.write_bytes(b"%PDF-1.4")
    with pytest.raises(
        ReadFault, match=r"layout, tables.*docling-tools models download.*--documents"
    ):
        text_of_office(pdf, cache, may_fetch=False)
    with pytest.raises(
        ReadFault, match=r"cannot fetch its models: no network; `docling-tools models download"
    ):
        text_of_office(pdf, cache, may_fetch=True)
    (tmp_path / "fetched").mkdir()
    monkeypatch.setenv("DOCLING_ARTIFACTS_PATH", str(tmp_path / "fetched"))
    found = text_of_office(pdf, cache, may_fetch=False)
    assert (found.text, found.why_plain) == ("read with fetched", "")
    pdf.write_bytes(b"%PDF-1.4 broken")
    with pytest.raises(ReadFault, match=r"cannot read it: Pipeline failed on a.pdf: no xref"):
        text_of_office(pdf, cache, may_fetch=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "docling"]:
        monkeypatch.delitem(sys.modules, name)


def lines(*rows: tuple[float, float, str], page: int = 1, height: float = 10) -> list[PdfLine]:
    """Each of (left, top, text)."""
    return [PdfLine(page, x, y, x + 200, y - height, text) for x, y, text in rows]


def test_lines_of_a_page_become_paragraphs_and_headings() -> None:
    read = markdown_of_lines(
        [
            *lines((50, 700, "The lighthouse"), height=16),
            *lines(
                (50, 660, "It was built in 1871 by stone-"),
                (50, 648, "masons. Its light is seen from far off-"),
                (50, 636, "Shore, they say."),
                (50, 610, "Nobody lives there."),
                (60, 590, "• a lamp"),
                (60, 578, "• a bell that is"),
                (66, 566, "rung in fog"),
            ),
        ]
    )
    assert read == (
        "## The lighthouse\n\n"
        "It was built in 1871 by stonemasons. Its light is seen from far off- Shore, they say.\n\n"
        "Nobody lives there.\n\n- a lamp\n\n- a bell that is rung in fog\n"
    )


def test_page_numbers_and_leaders_are_left_out_and_sentences_go_over_the_page() -> None:
    read = markdown_of_lines(
        [
            *lines((50, 700, "1 Introduction . . . . . . . . . 4")),
            *lines((50, 600, "The harbour was"), (250, 40, "- 12 -")),
            *lines((50, 760, "Page 13"), (50, 700, "dug by hand."), (50, 650, "13"), page=2),
            *lines((50, 760, "1871"), (50, 700, "A year alone."), page=3),
        ]
    )
    assert read == "The harbour was dug by hand.\n\n1871\n\nA year alone.\n"
    assert markdown_of_lines([]) == markdown_of_lines(lines((0, 0, " "))) == ""


def test_only_numbers_that_count_the_pages_are_page_numbers() -> None:
    def of_pages(*pages: Sequence[str]) -> str:
        """Each line a paragraph of its own."""
        return markdown_of_lines(
            [
                line
                for number, page in enumerate(pages, start=1)
                for line in lines(*((50, 700 - 40 * n, x) for n, x in enumerate(page)), page=number)
            ]
        ).replace("\n", " ")

    chronicle = of_pages(["Annals", "1887", "A mill is built."], ["1901", "It burns."])
    assert chronicle == "Annals  1887  A mill is built.  1901  It burns. "
    assert of_pages(["Prices", "Cheese", "14"], ["Milk", "20"]) == "Prices  Cheese  14  Milk  20 "
    assert of_pages(["It was", "civil"], ["A war", "mix"]) == "It was  civil  A war  mix "
    assert (
        of_pages(["Preface", "xiv"], ["Thanks", "XV"], ["One", "1"]) == "Preface  Thanks  One  1 "
    )
    # Only every other page has one.
    assert of_pages(["A", "3"], ["B"], ["C", "5"]) == "A  B  C "


def test_running_heads_are_left_out_from_three_pages_on() -> None:
    pages = [
        lines((50, 760, f"Boats, page {n}"), (300, 740, f"{n}"), (50, 700, said), page=n)
        for n, said in enumerate(("Boats float.", "Some sink.", "None fly."), start=1)
    ]
    read = markdown_of_lines([line for page in pages for line in page])
    assert read == "Boats float.\n\nSome sink.\n\nNone fly.\n"
    assert "Boats, page" in markdown_of_lines([*pages[0], *pages[1]])
    dated = [
        lines((50, 760, f"{n} Report of 2019"), (50, 700, said), page=n)
        for n, said in enumerate(("It rose.", "It fell.", "It rose."), start=7)
    ]
    assert "Report" not in markdown_of_lines([line for page in dated for line in page])


def test_what_opens_a_page_and_is_no_running_head_stays() -> None:
    chapters = [
        line
        for n, said in enumerate(("Boats float.", "Some sink.", "None fly."), start=1)
        for line in (
            *lines((50, 760, f"Chapter {n}"), page=n, height=16),
            *lines((50, 700, said), (50, 688, "So it is."), page=n),
        )
    ]
    assert markdown_of_lines(chapters).count("## Chapter") == 3
    lots = [
        line
        for page, lot in ((1, 12), (2, 40), (3, 7))
        for line in lines((50, 760, f"Lot {lot}"), (50, 700, "A chair."), page=page)
    ]
    assert markdown_of_lines(lots).count("Lot ") == 3
    # A chapter's title and the heads that repeat it.
    titled = [
        *lines((50, 760, "The harbour"), height=16),
        *lines((50, 700, "It was dug."), (50, 688, "By hand.")),
        *(
            line
            for page in (2, 3, 4)
            for line in lines((50, 760, "The harbour"), (50, 700, f"{page} men."), page=page)
        ),
    ]
    assert markdown_of_lines(titled).count("The harbour") == 1


def test_columns_that_follow_each_other_stay_apart() -> None:
    left = lines((50, 700, "Left one"), (50, 688, "left two"))
    right = lines((300, 700, "right one"), (300, 688, "right two"))
    assert markdown_of_lines([*left, *right]) == "Left one left two\n\nright one right two\n"


NATIVE = importlib.util.find_spec("docling") is not None and (
    importlib.util.find_spec("docling.pipeline.native_pdf_pipeline") is not None
)


@pytest.mark.slow
@pytest.mark.skipif(not NATIVE, reason="no docling that reads a PDF without models")
def test_a_pdf_is_read_without_models_and_stays_as_it_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCLING_ARTIFACTS_PATH", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    pdf = tmp_path / "a.pdf"
    pdf.write_bytes(one_page("The ferry leaves at noon.", "It takes an hour."))
    for why in ("are not here", "so before"):
        found = text_of_office(pdf, tmp_path / "cache", may_fetch=False)
        assert found.text == "The ferry leaves at noon. It takes an hour.\n"
        assert why in found.why_plain
    pdf.write_bytes(one_page())
    with pytest.raises(ReadFault, match="no text"):
        text_of_office(pdf, tmp_path / "cache", may_fetch=False)


def one_page(*texts: str) -> bytes:
    """A PDF of these lines in Helvetica."""
    shown = " ".join(f"({text}) Tj T*" for text in texts)
    stream = f"BT /F1 12 Tf 14 TL 72 720 Td {shown} ET".encode()
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 4 0 R "
        b"/Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(stream), stream),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    written, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        places.append(len(written))
        written += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return (
        written
        + b"xref\n0 %d\n0000000000 65535 f \n%strailer\n"
        % (
            len(objects) + 1,
            table,
        )
        + b"<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, len(written))
    )
