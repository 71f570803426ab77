"""PDF, DOCX and PPTX as Markdown, through docling, where it is installed."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from feldspar.files import write_bytes_whole
from feldspar.taxonomy.text_files import ReadFault, check_size

MAX_OFFICE_BYTES = 100_000_000
MAX_UNPACKED_BYTES = 200_000_000
MAX_MEMBERS = 10_000
MAX_PAGES = 2_000


def text_of_office(path: Path, cache: Path) -> str:
    """The text as Markdown, converted once for each content. Raises ReadFault, OSError."""
    check_size(path, MAX_OFFICE_BYTES)
    kept = cache / "converted-1" / f"{hashlib.sha256(path.read_bytes()).hexdigest()}.md"
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    if path.suffix.lower() != ".pdf":
        _refuse_bomb(path)
    text = _converted(path)
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_whole(kept, text.encode("utf-8", "replace"), is_shared=True)
    return text


def _refuse_bomb(path: Path) -> None:
    """An Office file is an archive: what it says it unpacks to is looked at first."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ReadFault("it is not what its name says") from error
    unpacked = sum(member.file_size for member in members)
    if unpacked > MAX_UNPACKED_BYTES or len(members) > MAX_MEMBERS:
        raise ReadFault(
            f"it unpacks to {unpacked} bytes in {len(members)} files; "
            f"{MAX_UNPACKED_BYTES} and {MAX_MEMBERS} are read at most"
        )


def _converted(path: Path) -> str:
    try:
        from docling.document_converter import DocumentConverter
        from docling.exceptions import BaseError
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "docling":
            raise
        raise ReadFault(
            f"{path.suffix} needs docling: pip install 'feldspar[documents]'"
        ) from error
    try:
        result = DocumentConverter().convert(path, max_num_pages=MAX_PAGES)
    except BaseError as error:
        raise ReadFault(f"docling cannot read it: {error}") from error
    return str(result.document.export_to_markdown())
