"""Read and check seeds, and cut documents into chunks."""

from feldspar.taxonomy.check.fixing import mend_files, mend_text
from feldspar.taxonomy.check.sarif import github_command, sarif
from feldspar.taxonomy.codes import CODES, SEVERITIES, Severity
from feldspar.taxonomy.diff import LeafChange, diff_taxonomy
from feldspar.taxonomy.documents.chunks import Coverage, cover, cut_chunks
from feldspar.taxonomy.documents.fetching import Fetcher
from feldspar.taxonomy.exam_split import SeedSplit, split_seeds
from feldspar.taxonomy.findings import Finding
from feldspar.taxonomy.read_leaves import (
    LEAVES_STEP,
    LeafFile,
    Readable,
    check_taxonomy,
    cut_documents,
    files_read,
    find_leaves,
    inspect_taxonomy,
    inspect_text,
    read_readable,
    read_taxonomy,
)
from feldspar.taxonomy.writing import import_table, new_leaf

__all__ = [
    "CODES",
    "LEAVES_STEP",
    "SEVERITIES",
    "Coverage",
    "Fetcher",
    "Finding",
    "LeafChange",
    "LeafFile",
    "Readable",
    "SeedSplit",
    "Severity",
    "check_taxonomy",
    "cover",
    "cut_chunks",
    "cut_documents",
    "diff_taxonomy",
    "files_read",
    "find_leaves",
    "github_command",
    "import_table",
    "inspect_taxonomy",
    "inspect_text",
    "mend_files",
    "mend_text",
    "new_leaf",
    "read_readable",
    "read_taxonomy",
    "sarif",
    "split_seeds",
]
