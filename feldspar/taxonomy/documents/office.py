"""PDF, DOCX and PPTX as Markdown, through docling, where it is installed."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path
from typing import NamedTuple

from feldspar.files import write_bytes_whole
from feldspar.taxonomy.documents.pdf_lines import PdfLine, markdown_of_lines
from feldspar.taxonomy.text_files import ReadFault, check_size

MAX_OFFICE_BYTES = 100_000_000
MAX_UNPACKED_BYTES = 200_000_000
MAX_MEMBERS = 10_000
MAX_PAGES = 2_000
FETCH_MODELS = "`docling-tools models download` fetches them once, on any machine with a network"
MODELS_VARIABLE = "DOCLING_ARTIFACTS_PATH"
"""Docling's own name for the folder of its models, where they are not where its tool puts them."""
_HUB_OWNERS = ("docling-project", "ds4sd")


class DocumentText(NamedTuple):
    """A document's text as Markdown."""

    text: str
    kept: Path
    """Where it lies from now on: what was read once stays as it was read."""
    why_plain: str = ""
    """Why a PDF was read line by line, without docling's models; empty for all others."""


def text_of_office(path: Path, cache: Path, *, may_fetch: bool) -> DocumentText:
    """The text, converted once for each content. Raises ReadFault, OSError.

    `may_fetch`: docling may get the models that it reads PDF with, where they are not here. Without
    them a PDF is read line by line.
    """
    check_size(path, MAX_OFFICE_BYTES)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    kept, kept_plain = (cache / name / f"{digest}.md" for name in ("converted-1", "plain-pdf-2"))
    for place, why_plain in ((kept, ""), (kept_plain, "it was so before")):
        if place.is_file():
            return DocumentText(place.read_text(encoding="utf-8"), place, why_plain)
    if path.suffix.lower() != ".pdf":
        _refuse_bomb(path)
    try:
        found = DocumentText(_converted(path, may_fetch), kept)
    except _NoModels as missing:
        found = DocumentText(_lines_of_pdf(path, missing), kept_plain, str(missing))
    found.kept.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_whole(found.kept, found.text.encode("utf-8", "replace"), is_shared=True)
    return found


class _NoModels(ReadFault):
    """Docling's models for PDF are not here."""


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
        raise _NoModels("docling's models for PDF (layout, tables, text recognition) are not here")
    try:
        result = DocumentConverter(format_options=options).convert(path, max_num_pages=MAX_PAGES)
    except (BaseError, RuntimeError) as error:
        # What fails in a pipeline is a RuntimeError, and says why in its cause alone.
        if isinstance(error.__cause__, OSError) and is_pdf and not options:
            raise _no_fetching(error.__cause__) from error
        raise _unreadable(error) from error
    except OSError as error:
        if not is_pdf or options:
            raise
        raise _no_fetching(error) from error
    return str(result.document.export_to_markdown())


def _no_fetching(error: OSError) -> _NoModels:
    return _NoModels(f"docling cannot fetch its models: {_first_line(error)}")


def _unreadable(error: Exception) -> ReadFault:
    cause = f": {_first_line(error.__cause__)}" if error.__cause__ else ""
    return ReadFault(f"docling cannot read it: {_first_line(error)}{cause}")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _lines_of_pdf(path: Path, missing: _NoModels) -> str:
    """By docling's way without models. Raises ReadFault where this docling has none, and where the
    file holds pictures of text alone."""
    from docling.datamodel.base_models import InputFormat
    from docling.document_converter import DocumentConverter, PdfFormatOption
    from docling.exceptions import BaseError

    try:
        from docling.datamodel.pipeline_options import NativePdfPipelineOptions
        from docling.pipeline.native_pdf_pipeline import NativePdfPipeline
    except ImportError:
        raise ReadFault(f"{missing}; {FETCH_MODELS}, and so does `--documents`") from missing
    way = PdfFormatOption(
        pipeline_cls=NativePdfPipeline, pipeline_options=NativePdfPipelineOptions()
    )
    try:
        converter = DocumentConverter(format_options={InputFormat.PDF: way})
        document = converter.convert(path, max_num_pages=MAX_PAGES).document
    except (BaseError, RuntimeError) as error:
        raise _unreadable(error) from error
    lines = [
        PdfLine(place.page_no, box.l, max(box.t, box.b), box.r, min(box.t, box.b), item.text)
        for item in document.texts
        for place in item.prov[:1]
        for box in [place.bbox.to_bottom_left_origin(document.pages[place.page_no].size.height)]
    ]
    text = markdown_of_lines(lines)
    if not text:
        raise ReadFault(f"it holds no text, only pictures of it; {missing}; {FETCH_MODELS}")
    return text


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
