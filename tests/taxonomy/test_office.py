"""PDF and Office documents: a clear word where they cannot be read, and no archive bombs."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

from feldspar.taxonomy.documents.office import MAX_UNPACKED_BYTES, text_of_office
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
    with pytest.raises(ReadFault, match=r"cannot fetch its models: no network; `docling-tools"):
        text_of_office(pdf, cache, may_fetch=True)
    (tmp_path / "fetched").mkdir()
    monkeypatch.setenv("DOCLING_ARTIFACTS_PATH", str(tmp_path / "fetched"))
    assert text_of_office(pdf, cache, may_fetch=False) == "read with fetched"
    for name in [name for name in sys.modules if name.partition(".")[0] == "docling"]:
        monkeypatch.delitem(sys.modules, name)
