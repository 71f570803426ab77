"""PDF and Office documents: a clear word where they cannot be read, and no archive bombs."""

from __future__ import annotations

import importlib.util
import zipfile
from pathlib import Path

import pytest

from feldspar.taxonomy.documents.office import MAX_UNPACKED_BYTES, text_of_office
from feldspar.taxonomy.text_files import ReadFault


@pytest.mark.skipif(importlib.util.find_spec("docling") is not None, reason="docling is there")
def test_without_docling_its_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    with pytest.raises(ReadFault, match=r"pip install 'feldspar\[documents\]'"):
        text_of_office(tmp_path / "a.pdf", tmp_path / "cache")


def test_a_bomb_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "bomb.docx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(21):
            archive.writestr(str(number), b"0" * (MAX_UNPACKED_BYTES // 20))
    with pytest.raises(ReadFault, match="unpacks to"):
        text_of_office(path, tmp_path / "cache")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pptx").write_bytes(b"no archive")
    with pytest.raises(ReadFault, match="not what its name says"):
        text_of_office(tmp_path / "a.pptx", tmp_path / "cache")
