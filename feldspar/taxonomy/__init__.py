"""Read and check seeds, and cut documents into chunks."""

from feldspar.taxonomy.chunks import count_words, cut_chunks, token_counter
from feldspar.taxonomy.exam_split import SeedSplit, split_seeds
from feldspar.taxonomy.codes import CODES, SEVERITIES, Severity
from feldspar.taxonomy.findings import Finding, printable
from feldspar.taxonomy.reading import (
    LeafFile,
    check_taxonomy,
    cut_documents,
    files_read,
    inspect_taxonomy,
    read_taxonomy,
)

__all__ = [
    "CODES",
    "Finding",
    "LeafFile",
    "SeedSplit",
    "check_taxonomy",
    "count_words",
    "cut_chunks",
    "cut_documents",
    "files_read",
    "inspect_taxonomy",
    "printable",
    "read_taxonomy",
    "split_seeds",
    "token_counter",
]
