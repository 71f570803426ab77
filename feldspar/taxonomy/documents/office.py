"""PDF, DOCX and PPTX as Markdown, through docling, where it is installed."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

from feldspar.files import write_bytes_whole
from feldspar.taxonomy.text_files import ReadFault, check_size

MAX_OFFICE_BYTES = 100_000_000
MAX_UNPACKED_BYTES = 200_000_000
MAX_MEMBERS = 10_000
MAX_PAGES = 2_000
FETCH_MODELS = "`docling-tools models download` fetches them once, on any machine with a network"
MODELS_VARIABLE = "DOCLING_ARTIFACTS_PATH"
"""Docling's own name for the folder of its models, where they are not where its tool puts them."""
_HUB_OWNERS = ("docling-project", "ds4sd")


def text_of_office(path: Path, cache: Path, *, may_fetch: bool) -> str:
    """The text as Markdown, converted once for each content. Raises ReadFault, OSError.

    `may_fetch`: docling may get the models that it reads PDF with, where they are not here.
    """
    check_size(path, MAX_OFFICE_BYTES)
    kept = cache / "converted-1" / f"{hashlib.sha256(path.read_bytes()).hexdigest()}.md"
    if kept.is_file():
        return kept.read_text(encoding="utf-8")
    if path.suffix.lower() != ".pdf":
        _refuse_bomb(path)
    text = _converted(path, may_fetch)
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


def _converted(path: Path, may_fetch: bool) -> str:
    try:
        from docling.datamodel.base_models import InputFormat
        from docling.datamodel.pipeline_options import PdfPipelineOptions
        from docling.document_converter import DocumentConverter, PdfFormatOption
        from docling.exceptions import BaseError
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "docling":
            raise
        raise ReadFault(
            f"{path.suffix} needs docling: pip install 'feldspar[documents]'"
        ) from error
    options = {}
    is_pdf = path.suffix.lower() == ".pdf"
    if is_pdf and (folder := _models_folder()) is not None:
        pipeline = PdfPipelineOptions(artifacts_path=folder)
        options = {InputFormat.PDF: PdfFormatOption(pipeline_options=pipeline)}
    elif is_pdf and not may_fetch and not _has_fetched_models():
        raise ReadFault(
            "docling's models for PDF (layout, tables, text recognition) are not here; "
            f"{FETCH_MODELS}, and so does `--documents`"
        )
    try:
        result = DocumentConverter(format_options=options).convert(path, max_num_pages=MAX_PAGES)
    except BaseError as error:
        raise ReadFault(f"docling cannot read it: {error}") from error
    except OSError as error:
        if not is_pdf or options:
            raise
        why = str(error).split("\n")[0]
        raise ReadFault(f"docling cannot fetch its models: {why}; {FETCH_MODELS}") from error
    return str(result.document.export_to_markdown())


def _models_folder() -> Path | None:
    """Where docling's tool put its models; None where it was not used."""
    named = os.environ.get(MODELS_VARIABLE)
    # Where no home is known, `~` stays, which is no folder.
    folder = Path(named or os.path.expanduser("~/.cache/docling/models"))
    return folder if folder.is_dir() else None


def _has_fetched_models() -> bool:
    """Whether docling got models of its own accord before: the hub's cache holds them."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cached = (Path(HF_HUB_CACHE).glob(f"models--{owner}--*") for owner in _HUB_OWNERS)
    return any(folder for folders in cached for folder in folders)
